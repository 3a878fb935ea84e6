//! How attention of a step is split, and how its cache is cut: written here for kernels, buffers and plans of memory.

/// Keys of a tile of a step's attention. A split has as many tiles as it takes for no more than `MOST_SPLITS`.
pub const STEP_KEYS: usize = 128;
/// Splits of a sequence.
#[cfg(feature = "nvrtc")]
pub(crate) const MOST_SPLITS: usize = 32;
/// Query heads of a key head, and features of a head, that the kernel serves.
#[cfg(feature = "cuda")]
pub(crate) const MOST_GROUP: usize = 8;
#[cfg(feature = "cuda")]
pub(crate) const MOST_HEAD_DIM: usize = 64;
/// Positions of a page of the key-value cache.
pub const PAGE_TOKENS: usize = 64;
const _: () = assert!(STEP_KEYS == 2 * PAGE_TOKENS, "a tile of attention reads two pages");
