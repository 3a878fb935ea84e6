//! Bytes of the structures that the host writes or reads field by field and a kernel has as one. Each file of CUDA C++
//! asserts that its own take as many.

use super::geometry::{PACKED_FACTORS, PAIR_JOBS, PATH_PAIRS};

/// Tensors of an optimizer's launch: what fits the 32,764 bytes of its parameters.
pub const MAX_TENSORS: usize = 480;
/// `Entry` of `optimizer.cu`: seven addresses, elements and first chunk.
pub const ENTRY_BYTES: usize = 7 * 8 + 2 * 4;
/// `Table` there: how many tensors and chunks, then entries.
pub const TABLE_BYTES: usize = 2 * 4 + MAX_TENSORS * ENTRY_BYTES;
/// `Step` there: the largest norm, and eight numbers.
pub const UPDATE_BYTES: usize = 8 + 8 * 4;

/// `Draw` of `draw.cu`: two numbers of 8 bytes, then six words.
pub const DRAW_BYTES: usize = 2 * 8 + 6 * 4;
/// `Drawn` there: four words, the last unused, and a sum.
pub const DRAWN_BYTES: usize = 4 * 4 + 8;

/// `Part` of `lora.cu`: an address and six words.
pub const FACTOR_BYTES: usize = 8 + 6 * 4;
/// `Packed` there: an address, three words and one between, then parts.
pub const PACKED_BYTES: usize = 8 + 4 * 4 + PATH_PAIRS * FACTOR_BYTES;
/// `AllPacked` there.
pub const ALL_PACKED_BYTES: usize = PACKED_FACTORS * PACKED_BYTES;

/// `Part` of `thin.cu`: four words.
pub const BAND_BYTES: usize = 4 * 4;
/// `Parts` there.
pub const BANDS_BYTES: usize = PATH_PAIRS * BAND_BYTES;

/// `Part` of `gradients.cu`: an address and four words.
pub const GRADIENT_BYTES: usize = 8 + 4 * 4;
/// `Job` there: two addresses and six words, then parts.
pub const JOB_BYTES: usize = 2 * 8 + 6 * 4 + PATH_PAIRS * GRADIENT_BYTES;
/// `Jobs` there: two words, then jobs.
pub const JOBS_BYTES: usize = 2 * 4 + PAIR_JOBS * JOB_BYTES;
