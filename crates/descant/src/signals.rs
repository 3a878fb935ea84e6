//! What SIGINT, SIGTERM and SIGHUP do.
//!
//! While steps are made, the first asks for a stop after the step, so that it is saved; at any other time, and the
//! second time, the process ends at once, which loses nothing that was saved: every file is whole or absent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context as _, Result};

use crate::failure::Exit;

/// The signals, and how the process ends by each. A terminal that goes away is a request to stop.
#[cfg(unix)]
const SIGNALS: [(i32, Exit); 3] = [
    (signal_hook::consts::SIGINT, Exit::Interrupted),
    (signal_hook::consts::SIGTERM, Exit::Terminated),
    (signal_hook::consts::SIGHUP, Exit::Terminated),
];

/// The signals, caught.
#[derive(Debug)]
pub(crate) struct Signals {
    /// The number of the signal that came; 0 for none.
    came: Arc<AtomicUsize>,
    /// Whether the next one ends the process.
    at_once: Arc<AtomicBool>,
}

impl Signals {
    /// Catches them from here on.
    pub(crate) fn catch() -> Result<Self> {
        let signals = Self { came: Arc::new(AtomicUsize::new(0)), at_once: Arc::new(AtomicBool::new(true)) };
        #[cfg(unix)]
        for (signal, exit) in SIGNALS {
            let (came, at_once) = (Arc::clone(&signals.came), Arc::clone(&signals.at_once));
            let caught = "catch signals";
            // In this order: a signal finds what the one before it has set.
            let status = i32::from(exit.code());
            signal_hook::flag::register_conditional_shutdown(signal, status, Arc::clone(&at_once))
                .context(caught)?;
            signal_hook::flag::register_usize(signal, came, signal as usize).context(caught)?;
            signal_hook::flag::register(signal, at_once).context(caught)?;
        }
        Ok(signals)
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
