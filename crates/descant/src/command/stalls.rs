//! Whether the host waits for memory while steps are computed: for pages that were swapped out, or dropped and read again.
//! Then steps wait for a disk, and the run ends with an error and its last step saved, in place of a stall.
//!
//! Linux counts the time in which nothing of a group of processes could run for want of memory, and for a disk (pressure
//! stall information). Waiting for a page that was swapped out counts as the one only where the page was in use shortly
//! before, and else as the other: so time for a disk counts where pages had to be brought meanwhile (major faults).
//! Where Linux does not count, only what was swapped out of this process is looked at, for a warning.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::host_memory::{group_files, resident};
use crate::failure::{Hinted, NotEnoughMemory};
use crate::talk::Talk;
use crate::words::size;

/// It is judged over this long at least.
const WINDOW: Duration = Duration::from_secs(20);
/// The share of that time from which on a run makes no headway.
const SHARE: f64 = 0.5;
/// Bytes swapped out of this process since it began that are worth a warning.
const SWAPPED: u64 = 256 << 20;
/// Pages that a process brings from a disk in a second where it waits for them; a program that reads its files brings
/// fewer in the middle of a run.
const FAULTS: f64 = 20.0;
/// What the kernel tells of the system as a whole, as groups do in files of their own.
const SYSTEM: [&str; 2] = ["/proc/pressure/memory", "/proc/pressure/io"];
const GROUP: [&str; 2] = ["memory.pressure", "io.pressure"];
const STATUS: &str = "/proc/self/stat";
const LONGEST: u64 = 1 << 12;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Stalls {
    /// Where the kernel tells of memory, and of disks.
    sources: [Option<PathBuf>; 2],
    /// When the window began, and what had been lost by then.
    window: Cell<(Instant, Lost)>,
    swapped_before: u64,
    has_warned: Cell<bool>,
    found: RefCell<Option<String>>,
}

/// All that was lost up to a moment.
#[derive(Debug, Clone, Copy, Default)]
struct Lost {
    /// Waiting for memory, and for disks.
    waited: [Duration; 2],
    /// Pages that were brought from a disk.
    faults: u64,
}

impl Stalls {
    /// From here on.
    pub(crate) fn new() -> Self {
        let source = |kind: usize| {
            let own = group_files(GROUP[kind]).into_iter().find(|path| lost(path).is_some());
            own.or_else(|| Some(PathBuf::from(SYSTEM[kind])).filter(|path| lost(path).is_some()))
        };
        Self::reading([source(0), source(1)], Instant::now(), faults())
    }

    fn reading(sources: [Option<PathBuf>; 2], now: Instant, faults: u64) -> Self {
        let before = Lost { waited: waited(&sources), faults };
        Self {
            sources,
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
        self.look(Instant::now(), swapped, faults())
    }

    fn look(&self, now: Instant, swapped: u64, faults: u64) -> bool {
        let (began, before) = self.window.get();
        let over = now.duration_since(began);
        if over < WINDOW {
            return self.found.borrow().is_some();
        }
        let total = Lost { waited: waited(&self.sources), faults };
        self.window.set((now, total));
        let [memory, disks] = [0, 1].map(|kind| total.waited[kind].saturating_sub(before.waited[kind]));
        let brings_pages = faults.saturating_sub(before.faults) as f64 >= FAULTS * over.as_secs_f64();
        let waited = if brings_pages { memory.max(disks) } else { memory };
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

/// Pages that this process had to bring from a disk so far.
fn faults() -> u64 {
    /// The field behind the name, which may hold anything and ends with the last bracket.
    const MAJOR: usize = 9;
    let bytes = descant_files::read_bounded(Path::new(STATUS), LONGEST).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let fields = text.rsplit_once(')').map(|(_, fields)| fields);
    fields.and_then(|fields| fields.split_ascii_whitespace().nth(MAJOR)?.parse().ok()).unwrap_or(0)
}

/// What the kernel has counted of both; nothing where it does not.
fn waited(sources: &[Option<PathBuf>; 2]) -> [Duration; 2] {
    sources.each_ref().map(|source| source.as_deref().and_then(lost).unwrap_or_default())
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
        let stalls = Stalls::reading([Some(path.clone()), None], start, 0);
        let at = |seconds| start + Duration::from_secs(seconds);
        // Much within a second, which is too short to judge.
        write(&path, 6_000_000);
        assert!(!stalls.look(at(1), 0, 0));
        assert!(!stalls.look(at(20), 0, 0), "one second of twenty");
        write(&path, 15_000_000);
        assert!(!stalls.look(at(39), 0, 0), "not yet");
        assert!(!stalls.look(at(60), 0, 0), "nine seconds of forty");
        assert!(stalls.error(3).is_none());
        write(&path, 15_000_000 + 25_000_000);
        assert!(stalls.look(at(100), 3 << 30, 0));
        assert!(stalls.look(at(101), 0, 0), "it stays found");
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
        let stalls = Stalls::reading([None, None], start, 0);
        assert!(!stalls.look(start + Duration::from_secs(1000), 0, 1 << 30));
    }

    #[test]
    fn waiting_for_a_disk_counts_where_pages_are_brought_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let sources = ["memory.pressure", "io.pressure"].map(|name| Some(dir.path().join(name)));
        let write_all = |memory: u64, disks: u64| {
            for (path, total) in sources.iter().flatten().zip([memory, disks]) {
                write(path, total);
            }
        };
        write_all(0, 0);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        // What swapping looked like with a slow disk: hardly anything is counted as memory's.
        for (faults, ends) in [(100, false), (5_000, true)] {
            write_all(0, 0);
            let stalls = Stalls::reading(sources.clone(), start, 0);
            write_all(600_000, 30_000_000);
            assert_eq!(stalls.look(at(36), 150 << 20, faults), ends, "{faults} pages");
        }
        let before = faults();
        assert!(faults() >= before);
    }
}
