//! The memory of a step: what its kernels write and read between each other, in one piece.

use super::split::{LEAST_TILES, MOST_SPLITS, PAGE_TOKENS, STEP_KEYS};
use super::types::WIDE_ROWS;
use crate::cuda::geometry::{WIDE_BAND, WIDE_COLUMNS, WIDE_SHARES};
use crate::cuda::structures::DRAW_BYTES;
use crate::cuda::{DeviceMemory, Gpu, Result};
use crate::memory::table::WORKSPACE;
use crate::op::pick::cuda::mask_bytes;
use crate::site::{ExpertPath, PathKind, Paths, PerPath};

/// Where each thing begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buffers {
    /// With room for more sequences than [`WIDE_ROWS`], how many rows dense products have: all that there is room for.
    pub(super) many: Option<usize>,
    /// cuBLASLt's, or what blocks that share a tile of a product leave for the last of them; and how many of these have
    /// arrived: zero between kernels.
    pub(super) workspace: u64,
    pub(super) arrived: u64,
    /// The residual stream `[rows, hidden]`, before and behind attention, and behind norms.
    pub(super) x: u64,
    pub(super) middle: u64,
    pub(super) normed: u64,
    /// `[rows, query + 2 key value]`, f32.
    pub(super) qkv: u64,
    pub(super) attended: u64,
    /// The output's product `[rows, hidden]`, f32.
    pub(super) product: u64,
    /// Low-rank rows of each path.
    pub(super) u: PerPath<u64>,
    /// Routing: logits, f32, and how many blocks of a row are done, zero between kernels.
    pub(super) routes: u64,
    pub(super) routed: u64,
    pub(super) experts: u64,
    pub(super) weights: u64,
    pub(super) pairs: u64,
    pub(super) places: u64,
    pub(super) offsets: u64,
    /// What lies between the experts' products, and what comes out, or goes in, in the order of experts.
    pub(super) inner: u64,
    pub(super) expert_out: u64,
    /// Attention's splits, and how many of them have arrived: zero between kernels.
    pub(super) parts: u64,
    pub(super) counters: u64,
    pub(super) logits: u64,
    /// The likeliest ids, a number of eight bytes each, zero between steps; and the state of each row, i32.
    pub(super) likeliest: u64,
    pub(super) ids: u64,
    pub(super) positions: u64,
    pub(super) slots: u64,
    /// The sequences' tables of pages behind each other, and where each begins, i32.
    pub(super) pages: u64,
    pub(super) first_page: u64,
    /// Whether the adapter takes part in each row, i32.
    pub(super) adapted: u64,
    /// How each row is drawn, and which tokens its penalty is for, a bit each.
    pub(super) draws: u64,
    pub(super) seen: u64,
}

/// What bytes depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) rows: usize,
    pub(super) hidden: usize,
    pub(super) query: usize,
    pub(super) key_value: usize,
    pub(super) heads: usize,
    pub(super) key_heads: usize,
    pub(super) head_dim: usize,
    pub(super) inner: usize,
    pub(super) experts: usize,
    pub(super) top_k: usize,
    pub(super) vocabulary: usize,
    /// Entries of all tables of pages, each of which has an even number.
    pub(super) pages: usize,
    /// The widest low-rank path of any layer at each product.
    pub(super) paths: Paths,
    /// Columns of the experts' low-rank rows, and the largest rank there: columns beyond it are zeros.
    pub(super) expert_columns: usize,
    pub(super) expert_rank: usize,
}

const ALIGNMENT: usize = 256;
/// See [`Buffers::likeliest`].
const LIKELIEST_BYTES: usize = 8;

/// Tiles of a dense product of many rows up to which blocks share out the sum of each: fewer would leave
/// multiprocessors idle.
pub(super) const SHARED_TILES: usize = 192;
/// What these blocks leave: sums of a tile of at most four bands, f32.
const SHARES_BYTES: usize = SHARED_TILES * WIDE_SHARES * 4 * WIDE_BAND * WIDE_COLUMNS * size_of::<f32>();
const _: () = assert!(SHARES_BYTES <= WORKSPACE, "one memory is for both");
/// How many have arrived at each tile.
const ARRIVED_BYTES: usize = SHARED_TILES * size_of::<i32>();

/// Splits of attention over so many keys.
pub(super) fn splits(keys: usize) -> usize {
    keys.div_ceil(LEAST_TILES * STEP_KEYS).clamp(1, MOST_SPLITS)
}

/// Entries of the table of a sequence with so many pages: two a tile.
pub(super) fn entries(pages: usize) -> usize {
    pages.next_multiple_of(PAGES)
}

/// Pages of a tile.
const PAGES: usize = STEP_KEYS / PAGE_TOKENS;

impl Buffers {
    pub(super) fn new(gpu: &Gpu, of: &Sizes) -> Result<(Self, DeviceMemory)> {
        let (_, bytes) = Self::at(0, of);
        let memory = DeviceMemory::new(gpu, bytes)?;
        let at = Self::at(memory.address(), of).0;
        let counters = of.rows * size_of::<u32>();
        gpu.call(Vec::new(), |run, _| {
            run.memset(at.arrived, 0, ARRIVED_BYTES)?;
            run.memset(at.counters, 0, of.key_heads * counters)?;
            run.memset(at.routed, 0, counters)?;
            let of_experts = of.rows * of.top_k * of.expert_columns * 2;
            ExpertPath::ALL.iter().try_for_each(|path| run.memset(at.u[*path], 0, of_experts))?;
            run.memset(at.likeliest, 0, of.rows * LIKELIEST_BYTES)
        })?;
        Ok((at, memory))
    }

    fn at(start: u64, of: &Sizes) -> (Self, usize) {
        let mut end = 0;
        let mut take = |bytes: usize| {
            let at = start + end as u64;
            end = (end + bytes).next_multiple_of(ALIGNMENT);
            at
        };
        let (rows, pairs) = (of.rows, of.rows * of.top_k);
        let (half, full) = (2, 4);
        let group = of.heads / of.key_heads;
        let new = Self {
            many: (rows > WIDE_ROWS).then_some(rows),
            workspace: take(WORKSPACE),
            arrived: take(ARRIVED_BYTES),
            x: take(rows * of.hidden * half),
            middle: take(rows * of.hidden * half),
            normed: take(rows * of.hidden * half),
            qkv: take(rows * (of.query + 2 * of.key_value) * full),
            attended: take(rows * of.query * half),
            product: take(rows * of.hidden * full),
            u: PerPath::from_fn(|path| {
                take(match path {
                    PathKind::Dense(path) => rows * of.paths[path] * half,
                    PathKind::Router => 0,
                    PathKind::Expert(_) => pairs * of.expert_columns * half,
                })
            }),
            routes: take(rows * of.experts * full),
            routed: take(rows * full),
            experts: take(pairs * full),
            weights: take(pairs * full),
            pairs: take(pairs * full),
            places: take(pairs * full),
            offsets: take((of.experts + 1) * full),
            inner: take(pairs * of.inner * half),
            expert_out: take(pairs * of.hidden * half),
            parts: take(
                of.pages / PAGES * of.key_heads * (group * (of.head_dim + 2)).next_multiple_of(4) * full,
            ),
            counters: take(rows * of.key_heads * full),
            logits: take(rows * of.vocabulary * half),
            likeliest: take(rows * LIKELIEST_BYTES),
            ids: take(rows * full),
            positions: take(rows * full),
            slots: take(rows * full),
            pages: take(of.pages * full),
            first_page: take(rows * full),
            adapted: take(rows * full),
            draws: take(rows * DRAW_BYTES),
            seen: take(rows * mask_bytes(of.vocabulary)),
        };
        (new, end)
    }
}
