//! An allocator that counts, so that a test can say how much memory a hostile input was given.
//!
//! Two counts: of the whole process, for a test that is alone in its binary, and of the thread that asks, for one that
//! runs beside others and whose subject stays on one thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

static NOW: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    // What one thread allocates another may free, so a thread's own sum can be negative.
    static OWN_NOW: Cell<isize> = const { Cell::new(0) };
    static OWN_PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counted. Install with `#[global_allocator]`.
#[derive(Debug)]
pub struct Counting;

/// Adds to both counts; `bytes` is negative for what is given back.
fn count(bytes: isize) {
    let now = NOW.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(now, Ordering::Relaxed);
    // A thread that is ending has no count of its own any more.
    let _ = OWN_NOW.try_with(|own| {
        own.set(own.get() + bytes);
        let _ = OWN_PEAK.try_with(|peak| peak.set(peak.get().max(own.get())));
    });
}

#[expect(unsafe_code, reason = "an allocator is an unsafe trait; tests only")]
// SAFETY: every call goes to the system's allocator as it is; what is added is counting, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// Whose allocations are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Everyone's: the test must be alone in its process, or take its turn.
    Process,
    /// The calling thread's.
    Thread,
}

/// Runs `subject`; returns by how much the heap grew at its peak.
///
/// Zero for ever where [`Counting`] is not installed: see [`is_counted`].
pub fn peak_of<T>(whose: Whose, subject: impl FnOnce() -> T) -> (T, usize) {
    let before = match whose {
        Whose::Process => {
            let before = NOW.load(Ordering::Relaxed);
            PEAK.store(before, Ordering::Relaxed);
            before
        }
        Whose::Thread => {
            let before = OWN_NOW.get();
            OWN_PEAK.set(before);
            before
        }
    };
    let result = subject();
    let peak = match whose {
        Whose::Process => PEAK.load(Ordering::Relaxed),
        Whose::Thread => OWN_PEAK.get(),
    };
    (result, (peak - before).max(0) as usize)
}

/// Whether this process counts at all; a test that measures asks first.
pub fn is_counted() -> bool {
    peak_of(Whose::Thread, || drop(std::hint::black_box(vec![1_u8; 1 << 16]))).1 >= 1 << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static HEAP: Counting = Counting;

    #[test]
    fn what_a_thread_takes_is_counted_at_its_most_and_for_that_thread() {
        assert!(is_counted());
        let ((), peak) = peak_of(Whose::Thread, || {
            drop(std::hint::black_box(vec![0_u8; 3 << 20]));
            let mut grown = std::hint::black_box(Vec::with_capacity(1 << 20));
            grown.push(1_u8);
            grown.reserve_exact(4 << 20);
            drop(std::hint::black_box(grown));
        });
        assert!((4 << 20..5 << 20).contains(&peak), "{peak}");
        let ((), peak) = peak_of(Whose::Thread, || {
            std::thread::spawn(|| drop(std::hint::black_box(vec![1_u8; 8 << 20]))).join().unwrap();
        });
        assert!(peak < 1 << 20, "another thread's: {peak}");
        let ((), peak) = peak_of(Whose::Process, || {
            std::thread::spawn(|| drop(std::hint::black_box(vec![1_u8; 8 << 20]))).join().unwrap();
        });
        assert!(peak >= 8 << 20, "{peak}");
    }
}
