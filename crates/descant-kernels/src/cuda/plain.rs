//! How the kernels without tiles are launched, and the sizes in them that the host computes with: as `geometry.rs`, for
//! rows, elements and choices.

use super::geometry::Block;

/// A vector of 16 bytes, a number or a token a thread, or a row a warp: rows by index, sums of pairs, routing.
pub const EACH: Block = Block::of(256);

/// `RMSNorm`, a block a row.
pub const NORM: Block = Block::of(128);
/// Heads that a thread turns to their positions.
pub const ROTARY_HEADS: usize = 4;
/// Vectors of a thread of SwiGLU's forward.
pub const SWIGLU_VECTORS: usize = 2;
/// The backward of SwiGLU, a block a row, also where it writes E4M3.
pub const SWIGLU_BACKWARD: Block = Block::of(128);
/// Times eight numbers of a row that a thread has where it writes E4M3.
pub const SWIGLU_FP8_VECTORS: usize = 3;

/// Experts that a token may go to at most.
pub const MAX_TOP_K: usize = 8;
/// The same of the form for few of the backward of the pairs' sum.
pub const FEW_TOP_K: usize = 4;
/// The backward of the pairs' sum, a block a row.
pub const PAIR_ROW: Block = Block::of(128);
/// Tokens of a tile of the router's product; a block has one or two.
pub const ROUTER_TOKENS: usize = 16;

/// A block a row of logits: their losses, the largest, one at random.
pub const LOGITS: Block = Block::of(1024);

/// The optimizer's kernels.
pub const OPTIMIZER: Block = Block::of(256);
/// Elements that a block of them takes at once.
pub const OPTIMIZER_CHUNK: usize = 4096;
/// The sum of the gradients' squares.
pub const NORM_SUM: Block = Block::of(1024);

/// Rows of a step of generation before and behind its products, a vector a thread.
pub const STEP_ROW: Block = Block::of(128);
/// Pairs that a step sorts, a thread each.
pub const STEP_PAIRS: Block = Block::of(1024);
/// The choice of a step's tokens.
pub const STEP_CHOICE: Block = Block::of(256);
