//! Damaged bytes through a door: it may take them or refuse them, and nothing else.
//!
//! A panic, more heap than is fair for the size, and more time than a moment are failures, each reported with the seed
//! that makes it again. Time is the thread's own on the processor, because a test machine is shared; a door that
//! sleeps or waits is caught by the clock on the wall, more patiently.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::{Duration, Instant};

use crate::Dice;
use crate::heap::{self, Whose, peak_of};
use crate::mutate::mutate;

/// What one input may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Heap that any input may take,
    pub heap: usize,
    /// and times its own size on top of that.
    pub heap_factor: usize,
    /// Time of the calling thread on the processor.
    pub busy: Duration,
    /// Time on the wall.
    pub patience: Duration,
    /// Whose heap is counted.
    pub whose: Whose,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            heap: 64 << 20,
            heap_factor: 4,
            busy: Duration::from_millis(100),
            patience: Duration::from_secs(5),
            whose: Whose::Process,
        }
    }
}

/// How many inputs were taken and refused, and the slowest and the largest of them.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Inputs that the door took.
    pub taken: usize,
    /// Inputs that it refused.
    pub refused: usize,
    /// Longest time on the processor.
    pub busiest: Duration,
    /// Most heap.
    pub most_heap: usize,
}

/// Sends `n` damaged versions of `good`, from the seeds 0 to n - 1, through `door`, which returns whether it took them.
///
/// # Errors
/// The first input that panicked or cost too much, with its seed.
pub fn send(
    n: usize,
    good: &[u8],
    limits: Limits,
    mut door: impl FnMut(&[u8]) -> bool,
) -> Result<Tally, String> {
    assert!(heap::is_counted(), "the counting allocator is not installed");
    let mut tally = Tally::default();
    for seed in 0..n as u64 {
        let mut bytes = good.to_vec();
        mutate(&mut bytes, good, &mut Dice::new(seed));
        let (start, before) = (Instant::now(), busy());
        let (result, heap) =
            peak_of(limits.whose, || quietly(|| catch_unwind(AssertUnwindSafe(|| door(&bytes)))));
        let (took, busy) = (start.elapsed(), busy().saturating_sub(before));
        match result {
            Err(_) => return Err(format!("seed {seed} panics")),
            Ok(true) => tally.taken += 1,
            Ok(false) => tally.refused += 1,
        }
        if heap > limits.heap + limits.heap_factor * bytes.len() {
            return Err(format!("seed {seed} takes {heap} bytes of heap for {} of input", bytes.len()));
        }
        if busy > limits.busy {
            return Err(format!("seed {seed} computes for {busy:?}"));
        }
        if took > limits.patience {
            return Err(format!("seed {seed} takes {took:?}"));
        }
        tally.busiest = tally.busiest.max(busy);
        tally.most_heap = tally.most_heap.max(heap);
    }
    Ok(tally)
}

/// Runs `subject` and prints nothing about panics on this thread: many are caught inside a door on purpose, and of the
/// others the seed is reported.
fn quietly<T>(subject: impl FnOnce() -> T) -> T {
    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                usual(panic);
            }
        }));
    });
    QUIET.set(true);
    let result = subject();
    QUIET.set(false);
    result
}

/// How many inputs a door gets: 2,000, and 10,000 with `DESCANT_SLOW=1`.
pub fn inputs() -> usize {
    if std::env::var_os("DESCANT_SLOW").is_some() { 10_000 } else { 2_000 }
}

/// As [`send`] with [`inputs`], and the door must take the undamaged input and refuse some of the damaged ones: that
/// shows that damage arrives. Prints the tally, for `cargo test -- --nocapture`.
///
/// # Panics
/// When the door is not what it should be.
#[expect(clippy::print_stdout, reason = "figures for docs/reliability.md")]
#[track_caller]
pub fn check(name: &str, good: &[u8], limits: Limits, mut door: impl FnMut(&[u8]) -> bool) {
    assert!(door(good), "{name}: the undamaged input is refused");
    let (n, start) = (inputs(), Instant::now());
    let tally = send(n, good, limits, door).unwrap_or_else(|error| panic!("{name}: {error}"));
    println!(
        "{name}: {n} inputs in {:.1?}, {} taken, {} refused, the busiest {:.1?}, the largest {} kB of heap",
        start.elapsed(),
        tally.taken,
        tally.refused,
        tally.busiest,
        tally.most_heap / 1000
    );
    assert!(tally.refused > n / 20, "{name}: {tally:?}");
}

/// Time that the calling thread has had on the processor; on the wall where the system does not report it.
fn busy() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = told.and_then(|text| text.split(' ').next()?.parse().ok());
    nanoseconds.map_or_else(wall, Duration::from_nanos)
}

fn wall() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        heap: 1 << 20,
        heap_factor: 4,
        busy: Duration::from_millis(100),
        patience: Duration::from_millis(400),
        whose: Whose::Thread,
    };

    #[test]
    fn a_door_that_panics_takes_too_much_computes_or_waits_too_long_is_seen() {
        let fails =
            |n, door: &mut dyn FnMut(&[u8]) -> bool| send(n, b"{\"a\": 12}", LIMITS, door).unwrap_err();
        let panics = fails(500, &mut |bytes| {
            assert!(bytes.len() < 20, "too long for me");
            true
        });
        assert!(panics.ends_with("panics"), "{panics}");
        let swallows = fails(1, &mut |_| std::hint::black_box(vec![1_u8; 2 << 20]).len() > 1);
        assert!(swallows.contains("bytes of heap for"), "{swallows}");
        let computes = fails(1, &mut |_| {
            let start = busy();
            while busy().saturating_sub(start) < Duration::from_millis(110) {}
            true
        });
        assert!(computes.contains("computes for"), "{computes}");
        let waits = fails(1, &mut |_| {
            std::thread::sleep(Duration::from_millis(450));
            true
        });
        assert!(waits.contains("takes"), "{waits}");
        let tally = send(100, b"{\"a\": 12}", LIMITS, |bytes| bytes.len() < 12).unwrap();
        assert!(tally.taken > 0 && tally.refused > 0 && tally.taken + tally.refused == 100, "{tally:?}");
    }
}
