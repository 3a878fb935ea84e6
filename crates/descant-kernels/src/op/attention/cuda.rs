//! Attention on a CUDA card: sizes, forms, and the forward's launch on raw addresses. The backward's are in
//! `cuda_backward.rs`, the operator made of both in `cuda_ops.rs`.
//!
//! Hopper has kernels of its own for heads of 64; every other card and width goes through mma.sync. Both have the
//! same arguments, and differ in the rows of a tile, so the work list is made for one form.

use super::strips;
use super::table::Sequences;
use super::tiles::Split;
use crate::cuda::geometry::{self, Block, MAX_GROUP, QUERY_ROWS, QUERY_ROWS_SM90, WINDOW_GROUP};
use crate::cuda::table::Define;
use crate::cuda::{Arg, CudaError, Result, Run};

/// Widths of a head that the kernels are written for.
const WIDTHS: [usize; 3] = [16, 32, 64];

/// Blocks that a large card computes at once: two on each of its multiprocessors.
const BLOCKS: usize = 264;
/// Into how many tiles of keys are split in layers with a window; measured on an H200 at 4 x 4096.
const WINDOW_SPLIT: usize = 2;

/// Sizes that all calls of a layer share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shape {
    pub(crate) n_tokens: usize,
    pub(crate) n_heads: usize,
    pub(crate) n_kv: usize,
    pub(crate) head_dim: usize,
    pub(crate) window: Option<usize>,
    pub(crate) scale: f32,
}

impl Shape {
    /// What every pass takes: addresses, strides, and behind them the sizes that all calls share.
    pub(super) fn arguments<const N: usize, const M: usize>(
        &self,
        addresses: [u64; N],
        strides: [usize; M],
    ) -> Vec<Arg<'static>> {
        let mut arguments = Arg::list(addresses, strides);
        arguments.extend([self.n_tokens, self.window.unwrap_or(0)].map(Arg::size));
        arguments.push(Arg::F32(self.scale));
        arguments
    }
}

/// Query, key and value, or their gradients: addresses, and elements from a row to the next. Head `h` of each begins
/// at column `h * head_dim` of its own address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) query: u64,
    pub(crate) key: u64,
    pub(crate) value: u64,
    pub(crate) query_stride: usize,
    pub(crate) key_stride: usize,
}

/// The same as parts of one row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packed {
    pub(crate) query: u64,
    pub(crate) key: u64,
    pub(crate) value: u64,
    pub(crate) stride: usize,
}

impl From<Packed> for Rows {
    fn from(packed: Packed) -> Self {
        let Packed { query, key, value, stride } = packed;
        Self { query, key, value, query_stride: stride, key_stride: stride }
    }
}

/// Whether there are kernels for heads of this width, `group` of which share a key head.
pub(crate) fn has_kernel(head_dim: usize, group: usize) -> bool {
    WIDTHS.contains(&head_dim) && (1..=MAX_GROUP).contains(&group)
}

/// Which kernels run, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) sm90: bool,
    pub(super) group: usize,
    pub(super) head_dim: usize,
}

impl Form {
    pub(super) fn new(run: &Run<'_>, shape: &Shape, strides: &[usize]) -> Result<Self> {
        let group = shape.n_heads / shape.n_kv;
        let fits = shape.n_heads == group * shape.n_kv
            && has_kernel(shape.head_dim, group)
            && strides.iter().all(|stride| stride.is_multiple_of(8));
        if !fits {
            let what = format!(
                "{} heads of {} over {} key heads, rows {strides:?} apart",
                shape.n_heads, shape.head_dim, shape.n_kv
            );
            return Err(CudaError::NoKernel { operator: "attention", what });
        }
        let sm90 = run.gpu().is_hopper() && shape.head_dim == 64;
        Ok(Self { sm90, group, head_dim: shape.head_dim })
    }

    /// Positions of a tile of queries.
    pub(super) fn positions(self) -> usize {
        (if self.sm90 { QUERY_ROWS_SM90 } else { QUERY_ROWS }) / self.group
    }

    /// Whether the backward of a layer with a window is one pass over so many sequences, in strips of positions. It has
    /// other last bits than two passes, so that sizes alone decide it.
    pub(super) fn goes_in_strips(self, shape: &Shape, sequences: usize) -> bool {
        let has_kernel = !self.sm90 && self.head_dim == 64 && self.group == WINDOW_GROUP;
        // A multiprocessor has room for one such block.
        let pays = || strips::pay([shape.n_tokens, shape.n_kv], sequences, BLOCKS / 2);
        has_kernel && shape.window.is_some_and(strips::serve) && pays()
    }

    /// How tiles of keys are split: Hopper's kernels walk over theirs. A window has few queries a tile.
    pub(super) fn split(self, run: &Run<'_>, shape: &Shape, sequences: usize) -> Split {
        match shape.window {
            _ if self.goes_in_strips(shape, sequences) => {
                Split::Strips { blocks: (run.gpu().multiprocessors() as usize / shape.n_kv).max(1) }
            }
            _ if self.sm90 => Split::Whole,
            Some(_) => Split::Into(WINDOW_SPLIT),
            None => Split::Shared { blocks: (BLOCKS / shape.n_kv).max(1) },
        }
    }

    pub(super) fn defines(self) -> [Define; 2] {
        [("HEAD_DIM", self.head_dim as i64), ("GROUP", self.group as i64)]
    }
}

/// One launch over a work list: Hopper's blocks stay and walk over it, the others are one an entry.
pub(super) fn launch(
    run: &Run<'_>,
    form: Form,
    shape: &Shape,
    kernel: (&'static str, &'static str, &[Define]),
    block: Block,
    n_tiles: usize,
    mut arguments: Vec<Arg>,
) -> Result<()> {
    let (unit, entry, defines) = kernel;
    let function = run.kernel(unit, entry, defines)?;
    if form.sm90 {
        let items = n_tiles * shape.n_kv;
        arguments.extend([Arg::size(items), Arg::size(shape.n_kv)]);
        let grid = items.min(run.gpu().multiprocessors() as usize);
        return run.launch_early(function, grid, block.threads, block.shared, &arguments);
    }
    run.launch(function, (shape.n_kv, n_tiles), block.threads, block.shared, &arguments)
}

/// Attention of `rows` into `out`, bf16 rows `out_stride` apart, and the logarithms of the denominators, base 2 and
/// with the sink, f32 `[heads, tokens]`. `sinks` f32 `[heads]`.
pub(crate) fn forward(
    run: &Run<'_>,
    shape: &Shape,
    sequences: &Sequences,
    rows: impl Into<Rows>,
    sinks: u64,
    out: u64,
    out_stride: usize,
    lse: u64,
) -> Result<()> {
    let rows = rows.into();
    let form = Form::new(run, shape, &[rows.query_stride, rows.key_stride, out_stride])?;
    let work = sequences.work(run, form.positions(), form.split(run, shape, sequences.count()))?;
    let addresses = [rows.query, rows.key, rows.value, sinks, out, lse, work.queries];
    let arguments = shape.arguments(addresses, [rows.query_stride, rows.key_stride, out_stride]);
    let defines = form.defines();
    let (unit, block) = if form.sm90 {
        ("attention/forward_sm90", geometry::FORWARD_SM90)
    } else {
        ("attention/forward", geometry::FORWARD.of_features(form.head_dim))
    };
    let kernel = (unit, "attention_forward", &defines[..]);
    launch(run, form, shape, kernel, block, work.n_queries, arguments)
}
