//! Whether the host waits for memory while steps are computed: for pages that were swapped out, or dropped and read again.
//! Then steps wait for a disk, and the run ends with an error and its last step saved, in place of a stall.
//!
//! Linux counts the time in which nothing of a group of processes could run for want of memory (pressure stall
//! information). Where it does not, only what was swapped out of this process is looked at, for a warning.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::host_memory::{group_files, resident};
use super::room::size;
use crate::failure::{Hinted, NotEnoughMemory};
use crate::talk::Talk;

/// It is judged over this long at least.
const WINDOW: Duration = Duration::from_secs(20);
/// The share of that time from which on a run makes no headway.
const SHARE: f64 = 0.5;
/// Bytes swapped out of this process since it began that are worth a warning.
const SWAPPED: u64 = 256 << 20;
const SYSTEM: &str = "/proc/pressure/memory";
const LONGEST: u64 = 1 << 12;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Stalls {
    /// Where the kernel tells.
    source: Option<PathBuf>,
    /// When the window began, and all the time that had been lost by then.
    window: Cell<(Instant, Duration)>,
    swapped_before: u64,
    has_warned: Cell<bool>,
    found: RefCell<Option<String>>,
}

impl Stalls {
    /// From here on.
    pub(crate) fn new() -> Self {
        let own = group_files("memory.pressure").into_iter().find(|path| lost(path).is_some());
        let source = own.or_else(|| Some(PathBuf::from(SYSTEM)).filter(|path| lost(path).is_some()));
        Self::reading(source, Instant::now())
    }

    fn reading(source: Option<PathBuf>, now: Instant) -> Self {
        let before = source.as_deref().and_then(lost).unwrap_or_default();
        Self {
            source,
            window: Cell::new((now, before)),
            swapped_before: swapped(),
            has_warned: Cell::new(false),
            found: RefCell::new(None),
        }
    }

    /// Looks after a step; whether the run should end there.
    pub(crate) fn come(&self, talk: Talk) -> bool {
        let swapped = swapped().saturating_sub(self.swapped_before);
        if swapped >= SWAPPED && !self.has_warned.replace(true) {
            talk.warn(format_args!(
                "the host has swapped {} of this process out to a disk: steps may wait for it",
                size(swapped)
            ));
        }
        self.look(Instant::now(), swapped)
    }

    fn look(&self, now: Instant, swapped: u64) -> bool {
        let (began, before) = self.window.get();
        let over = now.duration_since(began);
        let Some(total) = self.source.as_deref().and_then(lost).filter(|_| over >= WINDOW) else {
            return self.found.borrow().is_some();
        };
        self.window.set((now, total));
        let waited = total.saturating_sub(before);
        if waited.as_secs_f64() < SHARE * over.as_secs_f64() {
            return self.found.borrow().is_some();
        }
        *self.found.borrow_mut() = Some(format!(
            "the host lacks memory: for {:.0} of the last {:.0} s nothing of this process could run, because pages had to \
             come back from a disk ({} are swapped out)",
            waited.as_secs_f64(),
            over.as_secs_f64(),
            size(swapped)
        ));
        true
    }

    /// The error that a run ends with that had to end for this.
    pub(crate) fn error(&self, step: u64) -> Option<anyhow::Error> {
        let found = self.found.borrow_mut().take()?;
        let hint = format!(
            "step {step} is saved: end other programs, or use a limit that keeps less on the host, and give the same \
             command again"
        );
        Some(Hinted::new(NotEnoughMemory(found), hint).into())
    }
}

/// Bytes of this process that are swapped out.
fn swapped() -> u64 {
    resident("VmSwap").unwrap_or(0)
}

/// The time in which nothing could run, of such a file: `full avg10=0.00 avg60=0.00 avg300=0.00 total=67912020`, in
/// microseconds.
fn lost(path: &Path) -> Option<Duration> {
    let bytes = descant_files::read_bounded(path, LONGEST).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("full "))?;
    let total = line.split_ascii_whitespace().find_map(|field| field.strip_prefix("total="))?;
    total.parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    fn write(path: &Path, total: u64) {
        let text = format!(
            "some avg10=1.00 avg60=0.00 avg300=0.00 total=999999999\nfull avg10=0.00 avg60=0.00 avg300=0.00 total={total}\n"
        );
        descant_files::write_atomic(path, text.as_bytes()).unwrap();
    }

    #[test]
    fn a_host_that_does_nothing_but_wait_ends_the_run_in_words_and_one_that_waits_a_little_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory.pressure");
        write(&path, 5_000_000);
        let start = Instant::now();
        let stalls = Stalls::reading(Some(path.clone()), start);
        let at = |seconds| start + Duration::from_secs(seconds);
        // Much within a second, which is too short to judge.
        write(&path, 6_000_000);
        assert!(!stalls.look(at(1), 0));
        assert!(!stalls.look(at(20), 0), "one second of twenty");
        write(&path, 15_000_000);
        assert!(!stalls.look(at(39), 0), "not yet");
        assert!(!stalls.look(at(60), 0), "nine seconds of forty");
        assert!(stalls.error(3).is_none());
        write(&path, 15_000_000 + 25_000_000);
        assert!(stalls.look(at(100), 3 << 30));
        assert!(stalls.look(at(101), 0), "it stays found");
        let error = stalls.error(7).unwrap();
        let text = crate::talk::describe(&error);
        assert!(text.contains("for 25 of the last 40 s") && text.contains("step 7 is saved"), "{text}");
        assert_eq!(Exit::of(&error), Exit::OutOfMemory);
    }

    #[test]
    fn what_the_kernel_does_not_tell_ends_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory.pressure");
        for text in ["", "some total=5\n", "full avg10=1\n", "full total=x\n"] {
            descant_files::write_atomic(&path, text.as_bytes()).unwrap();
            assert_eq!(lost(&path), None, "{text}");
        }
        let start = Instant::now();
        let stalls = Stalls::reading(None, start);
        assert!(!stalls.look(start + Duration::from_secs(1000), 0));
    }
}
