//! Sizes of the kernels' scratch memory: what memory is planned with, on every device.

/// Pairs that a block sorts.
pub(crate) const CHUNK: usize = 1024;

/// Bytes of scratch memory that the sorting of pairs by expert needs.
pub(crate) const fn sort_bytes(n_pairs: usize, n_experts: usize) -> usize {
    n_pairs.div_ceil(CHUNK) * n_experts * size_of::<i32>()
}
