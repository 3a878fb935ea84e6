//! How much of a card burn's pool may hold: what a limit leaves it beside all else that this process has there.
//!
//! A limit is an owner's, most often a model's, and bounds all that the process has on the card: of several the smallest
//! holds, as long as its owner lives.
//!
//! CubeCL has no setting for that. `interop.rs` asks here before a buffer that an operator of ours wants makes the pool
//! grow, and looks before each piece of our work whether it has grown for somebody else: what is beyond the limit is
//! refused before the driver is asked, or given back before anything is computed there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::error::CudaError;
use crate::memory::pool::pool_page;

/// The pool's pages for small buffers, and the largest of those.
const SMALL_PAGE: u64 = 8 << 20;
const SMALL: u64 = 64 << 10;
/// No limit.
const NONE: u64 = u64::MAX;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Cap {
    /// The limits that are held, by number, and how many numbers were given out.
    limits: Mutex<(BTreeMap<u64, u64>, u64)>,
    /// The smallest of them.
    limit: AtomicU64,
    /// Bytes that are neither the pool's nor counted pieces: context, kernels, libraries.
    beside: AtomicU64,
    /// Bytes of pieces of our own.
    taken: AtomicI64,
    /// The largest buffer that was asked for: the pool's pages are as large.
    largest: AtomicU64,
}

impl Default for Cap {
    fn default() -> Self {
        let [limit, beside, largest] = [NONE, 0, 0].map(AtomicU64::new);
        Self { limits: Mutex::default(), limit, beside, taken: AtomicI64::new(0), largest }
    }
}

impl Cap {
    /// Holds a limit for as long as the result lives.
    pub(crate) fn hold(self: &Arc<Self>, limit: u64) -> Limited {
        let number = self.change(|limits, numbers| {
            *numbers += 1;
            limits.insert(*numbers, limit);
            *numbers
        });
        Limited { cap: Arc::clone(self), number }
    }

    fn change<R>(&self, change: impl FnOnce(&mut BTreeMap<u64, u64>, &mut u64) -> R) -> R {
        let mut held = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let (limits, numbers) = &mut *held;
        let result = change(limits, numbers);
        self.limit.store(limits.values().copied().min().unwrap_or(NONE), Ordering::Relaxed);
        result
    }

    /// Bytes that the process may have on the card.
    pub(crate) fn limit(&self) -> Option<u64> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|limit| *limit != NONE)
    }

    /// Sets what is in use beside pool and counted pieces.
    pub(crate) fn set_beside(&self, bytes: u64) {
        self.beside.store(bytes, Ordering::Relaxed);
    }

    /// Counts so many bytes more, or fewer, of our own pieces.
    pub(crate) fn count(&self, bytes: i64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of our own pieces.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed).max(0) as u64
    }

    /// Bytes that the pool may hold; `None` without a limit.
    pub(crate) fn of_pool(&self) -> Option<u64> {
        let beside = self.beside.load(Ordering::Relaxed) + self.taken();
        self.limit().map(|limit| limit.saturating_sub(beside))
    }

    /// Bytes that the pool would take from the driver at most for a buffer of so many.
    pub(crate) fn page(&self, bytes: u64) -> u64 {
        if bytes <= SMALL {
            return SMALL_PAGE;
        }
        pool_page(self.largest.fetch_max(bytes, Ordering::Relaxed).max(bytes))
    }

    /// The error of a pool that holds so many bytes or would.
    pub(crate) fn refusal(&self, pool: u64) -> CudaError {
        let beside = self.beside.load(Ordering::Relaxed) + self.taken();
        CudaError::Limit { wanted: beside + pool, allowed: self.limit.load(Ordering::Relaxed) }
    }
}

/// A limit that is held on a card.
#[derive(Debug)]
pub(crate) struct Limited {
    cap: Arc<Cap>,
    number: u64,
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.cap.change(|limits, _| limits.remove(&self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_may_hold_what_a_limit_leaves_beside_all_else() {
        let cap = Arc::new(Cap::default());
        cap.count(30);
        assert_eq!(cap.of_pool(), None);
        cap.set_beside(20);
        let limit = cap.hold(100);
        assert_eq!(cap.of_pool(), Some(50));
        assert_eq!(cap.refusal(60), CudaError::Limit { wanted: 110, allowed: 100 });
        assert!(cap.refusal(60).is_out_of_memory());
        cap.count(40);
        assert_eq!(cap.of_pool(), Some(10));
        cap.count(40);
        assert_eq!(cap.of_pool(), Some(0), "more is in use than may be");
        drop(limit);
        assert_eq!(cap.of_pool(), None);
    }

    #[test]
    fn of_several_limits_the_smallest_holds_as_long_as_its_owner_lives() {
        let cap = Arc::new(Cap::default());
        let [small, large] = [100, 300].map(|limit| cap.hold(limit));
        assert_eq!(cap.limit(), Some(100), "whoever came last");
        let smaller = cap.hold(50);
        assert_eq!(cap.limit(), Some(50));
        drop(small);
        drop(smaller);
        assert_eq!(cap.limit(), Some(300));
        drop(large);
        assert_eq!(cap.limit(), None);
    }

    #[test]
    fn a_page_is_as_large_as_the_largest_buffer_but_for_small_ones() {
        let cap = Cap::default();
        assert_eq!(cap.page(1 << 20), 2 << 20);
        assert_eq!(cap.page((100 << 20) + 1), 102 << 20);
        assert_eq!([cap.page(1), cap.page(SMALL)], [SMALL_PAGE; 2]);
        assert_eq!(cap.page(1 << 20), 102 << 20);
    }
}
