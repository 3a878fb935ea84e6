//! How attention of a step is split, and how its cache is cut: written here for kernels, buffers and plans of memory.

/// Keys of a split of a step's attention.
pub const STEP_KEYS: usize = 128;
/// Positions of a page of the key-value cache.
pub const PAGE_TOKENS: usize = 64;
const _: () = assert!(STEP_KEYS == 2 * PAGE_TOKENS, "a split of attention reads two pages");
