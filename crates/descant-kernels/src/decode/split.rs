//! How attention of a step is split, and how its cache is cut: written here for kernels, buffers and plans of memory.

/// Keys of a tile of a step's attention. A split has `LEAST_TILES`, or as many as it takes for no more than `MOST_SPLITS`.
pub const STEP_KEYS: usize = 128;
/// Tiles of a split at least: with one, 4,096 keys of one sequence took 2 us a layer longer on an H200.
#[cfg(feature = "nvrtc")]
pub(crate) const LEAST_TILES: usize = 2;
/// Splits of a sequence: 64 took 11 us a layer less than 32 at 32,768 keys.
#[cfg(feature = "nvrtc")]
pub(crate) const MOST_SPLITS: usize = 64;
/// Query heads of a key head, and features of a head, that the kernel serves.
#[cfg(feature = "cuda")]
pub(crate) const MOST_GROUP: usize = 8;
#[cfg(feature = "cuda")]
pub(crate) const MOST_HEAD_DIM: usize = 64;
/// Positions of a page of the key-value cache.
pub const PAGE_TOKENS: usize = 64;
const _: () = assert!(STEP_KEYS == 2 * PAGE_TOKENS, "a tile of attention reads two pages");
