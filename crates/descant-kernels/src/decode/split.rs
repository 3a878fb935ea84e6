//! How attention of a step is split: written here for kernel, buffers and plans of memory.

/// Keys of a split of a step's attention.
pub const STEP_KEYS: usize = 128;
