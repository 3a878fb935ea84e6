//! What SIGINT, SIGTERM and SIGHUP do.
//!
//! While steps are made, the first asks for a stop after the step, so that it is saved; at any other time, and the
//! second time, the process ends at once, which loses nothing that was saved: every file is whole or absent. A thread
//! waits for them, since what a second time is depends on the time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
#[cfg(unix)]
use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::failure::Exit;
use crate::talk::Talk;

/// The signals, and how the process ends by each. A terminal that goes away is a request to stop.
#[cfg(unix)]
const SIGNALS: [(i32, Exit); 3] = [
    (signal_hook::consts::SIGINT, Exit::Interrupted),
    (signal_hook::consts::SIGTERM, Exit::Terminated),
    (signal_hook::consts::SIGHUP, Exit::Terminated),
];

/// Signals that follow the first so closely are that one again: `timeout` sends its own to the process and then to the
/// whole group, and a terminal's goes to everyone in it.
#[cfg(unix)]
const SAME: Duration = Duration::from_millis(250);

/// The signals, caught.
#[derive(Debug)]
pub(crate) struct Signals {
    /// The number of the signal that came; 0 for none.
    came: Arc<AtomicUsize>,
    /// Whether the next one ends the process.
    at_once: Arc<AtomicBool>,
    /// Where it is said that the wish to stop was heard.
    talk: Arc<OnceLock<Talk>>,
}

impl Signals {
    /// Catches them from here on.
    pub(crate) fn catch() -> Result<Self> {
        let signals = Self {
            came: Arc::new(AtomicUsize::new(0)),
            at_once: Arc::new(AtomicBool::new(true)),
            talk: Arc::default(),
        };
        #[cfg(unix)]
        {
            // Where files may not grow beyond a limit (ulimit -f), the write then fails, and its error names the file.
            signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default())
                .context("catch signals")?;
            let (came, at_once) = (Arc::clone(&signals.came), Arc::clone(&signals.at_once));
            let talk = Arc::clone(&signals.talk);
            let caught = SIGNALS.into_iter().map(|(signal, _)| signal).filter(|signal| !is_of_nohup(*signal));
            let mut arriving = signal_hook::iterator::Signals::new(caught).context("catch signals")?;
            let wait = move || {
                let mut first = None;
                for signal in arriving.forever() {
                    let again = first.get_or_insert_with(Instant::now).elapsed() > SAME;
                    if again || at_once.load(Ordering::SeqCst) {
                        end(signal);
                    }
                    let first = came.swap(signal as usize, Ordering::SeqCst) == 0;
                    if let Some(talk) = talk.get().filter(|_| first) {
                        talk.interject(
                            "stopping",
                            "after this step, then saving; once more ends at once and loses the step",
                        );
                    }
                }
            };
            std::thread::Builder::new().name("signals".to_owned()).spawn(wait).context("catch signals")?;
        }
        Ok(signals)
    }

    /// As [`hold`](Self::hold), of steps: `talk` says that the wish to stop was heard.
    pub(crate) fn hold_steps(&self, talk: Talk) {
        let _ = self.talk.set(talk);
        self.hold();
    }

    /// From here on the first signal asks for a stop.
    pub(crate) fn hold(&self) {
        self.at_once.store(false, Ordering::SeqCst);
    }

    /// From here on a signal ends the process.
    pub(crate) fn release(&self) {
        self.at_once.store(true, Ordering::SeqCst);
    }

    /// How to end, if a signal came.
    pub(crate) fn came(&self) -> Option<Exit> {
        let came = self.came.load(Ordering::SeqCst);
        #[cfg(unix)]
        let found = SIGNALS.into_iter().find(|(signal, _)| *signal as usize == came).map(|(_, exit)| exit);
        #[cfg(not(unix))]
        let found = (came != 0).then_some(Exit::Interrupted);
        found
    }
}

/// Whether it is the terminal's goodbye, and the process was begun so that it does not hear it, as `nohup` does. Only
/// Linux tells.
#[cfg(unix)]
fn is_of_nohup(signal: i32) -> bool {
    /// Longest status that is read.
    const LIMIT: u64 = 1 << 16;
    if signal != signal_hook::consts::SIGHUP {
        return false;
    }
    let status = descant_files::read_bounded(Path::new("/proc/self/status"), LIMIT).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    ignored & (1 << (signal - 1)) != 0
}

/// Ends the process as a signal does that nobody waits for: what was begun stays as it is.
#[cfg(unix)]
fn end(signal: i32) -> ! {
    let exit = SIGNALS.into_iter().find(|(known, _)| *known == signal).map_or(Exit::Error, |(_, exit)| exit);
    signal_hook::low_level::exit(i32::from(exit.code()))
}
