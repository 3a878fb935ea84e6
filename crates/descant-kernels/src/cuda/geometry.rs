//! How the kernels with tiles are launched: threads and shared memory of a block, and the sizes of tiles and copies
//! that the host computes with.
//!
//! These numbers, and those of `plain.rs` and `structures.rs`, are written there and nowhere else: the host launches with
//! them, and each file of CUDA C++ is compiled with its list of them (`constants.rs`) and asserts that they are what its
//! own layout needs. A wrong one does not compile; `tests/it/launches.rs` looks for one that is written a second time.

use super::architecture::{Architecture, Capability};
use crate::site::SiteKind;

/// A constant given to the compiler: name and value.
pub type Define = (&'static str, i64);

/// A block of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Threads of it.
    pub threads: u32,
    /// Dynamic shared memory, in bytes.
    pub shared: u32,
}

/// Stacked query rows of a tile, a row a position and a head; other cards than Hopper.
pub const QUERY_ROWS: usize = 128;
/// The same on Hopper.
pub const QUERY_ROWS_SM90: usize = 192;
/// Keys of a tile in the pass over keys, on every card.
pub const KEY_ROWS: usize = 128;
/// Query heads of a key head at most: a step of 64 rows has one position of each.
pub const MAX_GROUP: usize = 64;
/// Numbers of an entry of attention's work lists.
pub const TILE_INTS: usize = 8;

/// Attention for every card. Its shared memory is that of one feature of a head.
pub const FORWARD: Block = Block { threads: 128, shared: 768 };
/// Both passes of its backward, as above.
pub const BACKWARD: Block = Block { threads: 128, shared: 768 };
/// The backward of a window in one pass, for heads of 64.
pub const BACKWARD_WINDOW: Block = Block { threads: 384, shared: 88_064 };
/// Stacked query rows of a step there: whole positions.
pub const WINDOW_ROWS: usize = 32;
/// Keys that a query sees there at most.
pub const MAX_WINDOW: usize = 128;
/// Heads of a key head there: with fewer, a block of keys has too few steps for the one place that keys have.
pub const WINDOW_GROUP: usize = 8;
/// Keys of a block there; strips begin with one.
pub const STRIP_KEYS: usize = 32;
/// Attention on Hopper.
pub const FORWARD_SM90: Block = Block { threads: 512, shared: 132_096 };
/// The pass over queries of its backward.
pub const BACKWARD_Q_SM90: Block = Block { threads: 512, shared: 189_440 };
/// The pass over keys.
pub const BACKWARD_KV_SM90: Block = Block { threads: 384, shared: 132_096 };
/// Blocks that share a tile of keys there, where tiles are few.
pub const KEY_PARTS_SM90: usize = 4;
/// Tiles of keys times key heads up to which they do: with more, multiprocessors are busy without.
pub const FEW_KEY_ITEMS_SM90: usize = 192;
/// Its backward in one pass.
pub const BACKWARD_ONE_SM90: Block = Block { threads: 512, shared: 197_632 };
/// What comes before that.
pub const DELTA_SM90: Block = Block { threads: 128, shared: 0 };
/// Rows of a block there.
pub const DELTA_ROWS: usize = 8;
/// Heads of it.
pub const DELTA_HEADS: usize = 16;
/// What comes after it.
pub const QUERIES_SM90: Block = Block { threads: 128, shared: 0 };

/// Experts of a layer at most: their offsets lie in shared memory.
pub const MAX_EXPERTS: usize = 256;
/// Pairs of a token and an expert that one block sorts alone, and experts there at most.
pub const FEW_PAIRS: usize = 4096;
/// See [`FEW_PAIRS`].
pub const FEW_PAIRS_EXPERTS: usize = 128;
/// Rows of an activation that a tensor copy brings.
pub const ROW_BOX: u32 = 32;
/// Lines of packed NF4 weights that one brings.
pub const WEIGHT_BOX: u32 = 64;
/// Columns of a tile of the products of packed matrices on Hopper.
pub const PACKED_COLUMNS: u32 = 192;
/// Numbers of the sum in a step there.
pub const PACKED_STEP: u32 = 64;
/// The same of rows in 8 bits.
pub const PACKED_STEP_FP8: u32 = 128;
/// Blocks a multiprocessor of the product for few rows.
pub const FEW_BLOCKS: u32 = 3;

/// Grouped products of bf16 on every card.
pub const GROUPED: Block = Block { threads: 256, shared: 77_060 };
/// Those of MXFP4 on every card.
pub const PACKED: Block = Block { threads: 256, shared: 91_000 };
/// Those of NF4, which looks its numbers up.
pub const PACKED_NF4: Block = Block { threads: 256, shared: 86_136 };
/// Those of bf16 on Hopper.
pub const GROUPED_SM90: Block = Block { threads: 512, shared: 217_668 };
/// Those of MXFP4 on Hopper.
pub const PACKED_SM90: Block = Block { threads: 512, shared: 221_380 };
/// Those of NF4 on Hopper.
pub const PACKED_NF4_SM90: Block = Block { threads: 512, shared: 230_596 };
/// Those of MXFP4 with rows in 8 bits.
pub const PACKED_FP8_SM90: Block = Block { threads: 512, shared: 222_628 };
/// Those for few rows an expert; the rest of its shared memory is static.
pub const FEW: Block = Block { threads: 256, shared: 0 };
/// Few rows times both factors of an adapter.
pub const LOW_RANK_FEW: Block = Block { threads: 256, shared: 0 };
/// A matrix times the few rows of a step of generation; its shared memory is that of the rows.
pub const THIN: Block = Block { threads: 256, shared: 0 };
/// Columns of its tiles.
pub const THIN_COLUMNS: usize = 8;
/// A matrix times many rows of a step, for a band of [`WIDE_BAND`] rows; a block has several.
pub const WIDE: Block = Block { threads: 64, shared: 0 };
/// Rows of a band.
pub const WIDE_BAND: usize = 32;
/// Columns of its tiles.
pub const WIDE_COLUMNS: usize = 64;
/// Stages of its ring.
pub const WIDE_STAGES: usize = 3;
/// Blocks that share out the sum of a tile where tiles are few.
pub const WIDE_SHARES: usize = 4;

/// Shared memory of a block there with so many bands: a stage is 64 numbers of each row and column.
pub const fn wide_shared(bands: usize) -> usize {
    WIDE_STAGES * (bands * WIDE_BAND + WIDE_COLUMNS) * 128
}
/// Experts of a step; its dynamic shared memory is that of [`STEP_GROUP`] rows.
pub const STEP_EXPERTS: Block = Block { threads: 256, shared: 0 };
/// Blocks a multiprocessor there.
pub const STEP_EXPERTS_BLOCKS: u32 = 2;
/// Rows of an expert that a tile has there, and in the first of Hopper's forms.
pub const STEP_GROUP: usize = 8;
/// The same on Hopper: warps that multiply, and one for each stage of the ring.
pub const STEP_EXPERTS_SM90: Block = Block { threads: (STEP_WARPS + STEP_STAGES) * 32, shared: 0 };
/// Warps that multiply there.
pub const STEP_WARPS: u32 = 12;
/// Stages of the ring there.
pub const STEP_STAGES: u32 = 3;
/// Columns of a tile there.
pub const STEP_COLUMNS: usize = 16;
/// Dynamic shared memory of a block there at least, so that no multiprocessor has room for two. The next such kernel
/// begins early, while this one is at work: its blocks would go two to a multiprocessor wherever there is room, and
/// others would have none.
pub const STEP_ALONE: u32 = 84 << 10;

/// Bytes of a stage there, for lines of `n_in` numbers and so many columns of low-rank rows: a tile's packed weights with
/// their scales, its biases, and the factor's rows.
pub const fn step_stage(n_in: usize, rank: usize) -> usize {
    let line = n_in / 32 * (16 + 1) + 2 + rank * 2;
    (STEP_COLUMNS * line).next_multiple_of(128)
}

/// Bytes of a row in shared memory there: in pairs of blocks.
pub const fn step_row(n_in: usize) -> usize {
    n_in.div_ceil(64) * 128
}

/// Experts of a step with many rows, on Hopper.
pub const STEP_WIDE: Block = Block { threads: STEP_WIDE_WARPS * 32, shared: 0 };
/// Warps there, each with tiles and a ring of its own.
pub const STEP_WIDE_WARPS: u32 = 12;
/// Stages of a ring there.
pub const STEP_WIDE_STAGES: u32 = 2;
/// Columns of a tile there.
pub const STEP_WIDE_COLUMNS: usize = 32;
/// Rows of a tile there at most.
const STEP_WIDE_ROWS: usize = 32;
/// Shared memory of a block of Hopper.
const SHARED_SM90: usize = Architecture::of(Capability { major: 9, minor: 0 }).shared_memory() as usize;

/// Bytes of a stage there: a piece of the sum as `experts_sm90.cu` cuts it, of a tile's packed weights with their
/// scales, or the tile's biases and factor.
pub const fn step_wide_stage(n_in: usize, rank: usize) -> usize {
    let chunks = n_in.div_ceil(64).div_ceil(STEP_WARPS as usize);
    let weights = STEP_WIDE_COLUMNS * chunks * (32 + 2);
    let end = STEP_WIDE_COLUMNS * (rank + 1) * 2;
    let most = if weights > end { weights } else { end };
    most.next_multiple_of(128)
}

/// Bytes of all rings there.
pub const fn step_wide_rings(n_in: usize, rank: usize) -> usize {
    (STEP_WIDE_WARPS * STEP_WIDE_STAGES) as usize * step_wide_stage(n_in, rank)
}

/// Rows that a tile there has room for; none where lines are too long.
pub const fn step_wide_rows(n_in: usize, rank: usize) -> usize {
    // Barriers, the experts' offsets, and what lies before each of them to be aligned.
    let fixed = (STEP_WIDE_WARPS * STEP_WIDE_STAGES) as usize * 8 + (MAX_EXPERTS + 1) * 4 + 64;
    let room = SHARED_SM90.saturating_sub(step_wide_rings(n_in, rank) + fixed);
    // A row, its low-rank row, and whose it is.
    let rows = room / (step_row(n_in) + rank * 2 + 8);
    if rows < STEP_WIDE_ROWS { rows } else { STEP_WIDE_ROWS }
}

/// Attention of a step; its dynamic shared memory is that of an adapter's factor, if at all.
pub const ATTEND: Block = Block { threads: 128, shared: 0 };
/// Routing of a step; its dynamic shared memory is that of its experts' rows of the router, the norm, the bias, and, where
/// there is room, an adapter's factor.
pub const ROUTE_ROWS: Block = Block { threads: 256, shared: 0 };
/// Experts of a block there.
pub const ROUTE_EXPERTS: usize = 4;
/// Blocks of a row there that are a cluster on Hopper, where a row has so many.
pub const ROUTE_TOGETHER: usize = 8;
/// An adapter's rows at the experts of a step.
pub const EXPERT_ROWS: Block = Block { threads: 256, shared: 0 };
/// Rows of A of a block there.
pub const EXPERT_RANKS: usize = 2;
/// Numbers of a row that both serve, at most.
pub const STEP_WIDTH: usize = 4096;
/// Published MXFP4 to tiles; its shared memory is 16 rows.
pub const TILES: Block = Block { threads: 256, shared: 0 };
/// A matrix of NF4 to bf16; its shared memory is static.
pub const UNPACK: Block = Block { threads: 256, shared: 0 };
/// Rows times a factor of an adapter; its shared memory depends on the rank.
pub const LOW_RANK_ROWS: Block = Block { threads: 128, shared: 0 };
/// Pairs that share a low-rank path of a layer's dense products at most.
pub const PATH_PAIRS: usize = 3;
const _: () = assert!(SiteKind::ATTENTION_INPUTS.len() <= PATH_PAIRS, "q, k and v share one");
/// Factors that one launch packs: both of every such path.
pub const PACKED_FACTORS: usize = 4;
/// Rows times a factor of a dense pair of a layer; its shared memory is static.
pub const THIN_ROWS: Block = Block { threads: 512, shared: 0 };
/// Tokens of a block there.
pub const THIN_ROWS_TOKENS: usize = 16;
/// Columns of a block there.
pub const THIN_ROWS_COLUMNS: usize = 32;
/// The gradients of the dense pairs of a layer; its shared memory is static.
pub const PAIR_GRADIENTS: Block = Block { threads: 128, shared: 0 };
/// Sums of one launch there: B at q, k, v and A for them, both at the output.
pub const PAIR_JOBS: usize = 6;
/// Columns of a block there.
pub const PAIR_COLUMNS: usize = 64;
/// Ranks of a block there.
pub const PAIR_RANKS: usize = 32;
/// Rows put in order by bulk copies; its shared memory is that of two rows a warp.
pub const TAKE_ROWS_SM90: Block = Block { threads: 256, shared: 0 };
/// Rows to E4M3, a warp a row, and the references of weights.
pub const ROWS_FP8: Block = Block { threads: 256, shared: 0 };
/// The gradient of a factor; its shared memory depends on the rank.
pub const LOW_RANK_GRADIENT: Block = Block { threads: 128, shared: 0 };
/// Rows of a tile of both, and columns of its wide operand.
pub const LOW_RANK_TILE: usize = 64;
/// Stages of the ring of both.
pub const LOW_RANK_STAGES: u32 = 4;

/// Bytes of all stages of them: a tile of the wide operand, and as many rows of the rank, in an odd number of pieces of 16
/// bytes each.
pub const fn low_rank_stages(rank: usize) -> u32 {
    LOW_RANK_STAGES * (LOW_RANK_TILE * (LOW_RANK_TILE * 2 + 16 * (rank.div_ceil(8) | 1))) as u32
}

/// Bytes of a block of [`LOW_RANK_ROWS`]: stages, and where the rows of each expert begin.
pub const fn low_rank_rows_shared(rank: usize) -> u32 {
    low_rank_stages(rank) + (MAX_EXPERTS as u32 + 1) * 4
}

/// The sum of its parts.
pub const LOW_RANK_SUM: Block = Block { threads: 256, shared: 0 };

impl Block {
    /// Of so many threads.
    pub const fn of(threads: u32) -> Self {
        Self { threads, shared: 0 }
    }

    /// Blocks in which each of so many items has a thread.
    pub const fn over(self, items: usize) -> usize {
        items.div_ceil(self.threads as usize)
    }

    /// Blocks in which each of so many items has a warp.
    pub const fn warps_over(self, items: usize) -> usize {
        items.div_ceil(self.threads as usize / 32)
    }

    /// With shared memory for so many features of a head.
    #[must_use]
    pub const fn of_features(self, features: usize) -> Self {
        Self { threads: self.threads, shared: self.shared * features as u32 }
    }

    pub(super) const fn threads(self, name: &'static str) -> Define {
        (name, self.threads as i64)
    }

    pub(super) const fn shared(self, name: &'static str) -> Define {
        (name, self.shared as i64)
    }
}
