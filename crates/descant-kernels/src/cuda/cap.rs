//! How much of a card burn's pool may hold: what a limit leaves it beside all else that this process has there.
//!
//! CubeCL has no setting for that. `interop.rs` asks here before a buffer that an operator of ours wants makes the pool
//! grow, and looks before each piece of our work whether it has grown for somebody else: what is beyond the limit is
//! refused before the driver is asked, or given back before anything is computed there.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::error::CudaError;

/// What a page of the pool is larger than the buffer that it was made for, at most.
const PAGE_SLACK: u64 = 2 << 20;
/// The pool's pages for small buffers, and the largest of those.
const SMALL_PAGE: u64 = 8 << 20;
const SMALL: u64 = 64 << 10;
/// No limit.
const NONE: u64 = u64::MAX;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Cap {
    /// Bytes that the process may have on the card.
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
        Self { limit, beside, taken: AtomicI64::new(0), largest }
    }
}

impl Cap {
    /// Sets the limit, and what of it is in use beside pool and counted pieces.
    pub(crate) fn set(&self, limit: Option<u64>, beside: u64) {
        self.beside.store(beside, Ordering::Relaxed);
        self.limit.store(limit.unwrap_or(NONE), Ordering::Relaxed);
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
        let limit = self.limit.load(Ordering::Relaxed);
        (limit != NONE).then(|| limit.saturating_sub(self.beside.load(Ordering::Relaxed) + self.taken()))
    }

    /// Bytes that the pool would take from the driver at most for a buffer of so many.
    pub(crate) fn page(&self, bytes: u64) -> u64 {
        if bytes <= SMALL {
            return SMALL_PAGE;
        }
        self.largest.fetch_max(bytes, Ordering::Relaxed).max(bytes) + PAGE_SLACK
    }

    /// The error of a pool that holds so many bytes or would.
    pub(crate) fn refusal(&self, pool: u64) -> CudaError {
        let beside = self.beside.load(Ordering::Relaxed) + self.taken();
        CudaError::Limit { wanted: beside + pool, allowed: self.limit.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_may_hold_what_a_limit_leaves_beside_all_else() {
        let cap = Cap::default();
        cap.count(30);
        assert_eq!(cap.of_pool(), None);
        cap.set(Some(100), 20);
        assert_eq!(cap.of_pool(), Some(50));
        assert_eq!(cap.refusal(60), CudaError::Limit { wanted: 110, allowed: 100 });
        assert!(cap.refusal(60).is_out_of_memory());
        cap.count(40);
        assert_eq!(cap.of_pool(), Some(10));
        cap.count(40);
        assert_eq!(cap.of_pool(), Some(0), "more is in use than may be");
        cap.set(None, 0);
        assert_eq!(cap.of_pool(), None);
    }

    #[test]
    fn a_page_is_as_large_as_the_largest_buffer_but_for_small_ones() {
        let cap = Cap::default();
        assert_eq!(cap.page(1 << 20), (1 << 20) + PAGE_SLACK);
        assert_eq!(cap.page(100 << 20), (100 << 20) + PAGE_SLACK);
        assert_eq!([cap.page(1), cap.page(SMALL)], [SMALL_PAGE; 2]);
        assert_eq!(cap.page(1 << 20), (100 << 20) + PAGE_SLACK);
    }
}
