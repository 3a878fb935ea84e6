//! Attention on a CUDA card: the launches on raw addresses. The operator made of them is in `cuda_ops.rs`.
//!
//! Hopper has kernels of its own for heads of 64; every other card and width goes through mma.sync. Both have the
//! same arguments, and differ in the rows of a tile, so the work list is made for one form.

use super::table::Sequences;
use super::tiles::Split;
use crate::cuda::geometry::{
    self, Block, FEW_KEY_ITEMS_SM90, KEY_PARTS_SM90, MAX_GROUP, QUERY_ROWS, QUERY_ROWS_SM90,
};
use crate::cuda::table::Define;
use crate::cuda::{Arg, CudaError, Result, Run};

/// Widths of a head that the kernels are written for.
const WIDTHS: [usize; 3] = [16, 32, 64];

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
    fn arguments<const N: usize, const M: usize>(
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

/// What the backward reads beside query, key and value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backward {
    /// The forward's result and its gradient, bf16 `[tokens, heads * dim]`.
    pub(crate) out: u64,
    pub(crate) d_out: u64,
    /// Elements from a row of both to the next.
    pub(crate) stride: usize,
    /// From the forward: f32 `[heads, tokens]`.
    pub(crate) lse: u64,
    /// Scratch of the same size.
    pub(crate) delta: u64,
}

/// Whether there are kernels for heads of this width, `group` of which share a key head.
pub(crate) fn has_kernel(head_dim: usize, group: usize) -> bool {
    WIDTHS.contains(&head_dim) && (1..=MAX_GROUP).contains(&group)
}

/// Which kernels run, and how.
#[derive(Debug, Clone, Copy)]
struct Form {
    sm90: bool,
    group: usize,
    head_dim: usize,
}

impl Form {
    fn new(run: &Run<'_>, shape: &Shape, strides: &[usize]) -> Result<Self> {
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
    fn positions(self) -> usize {
        (if self.sm90 { QUERY_ROWS_SM90 } else { QUERY_ROWS }) / self.group
    }

    /// How tiles of keys are split: Hopper's kernels walk over theirs.
    fn split(self) -> Split {
        if self.sm90 { Split::Whole } else { Split::ByLength }
    }

    fn defines(self) -> [Define; 2] {
        [("HEAD_DIM", self.head_dim as i64), ("GROUP", self.group as i64)]
    }
}

/// One launch over a work list: Hopper's blocks stay and walk over it, the others are one an entry.
fn launch(
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
    let work = sequences.work(run, form.positions(), form.split())?;
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

/// Gradients of query, key and value into `gradients`, every row of which is written.
pub(crate) fn backward(
    run: &Run<'_>,
    shape: &Shape,
    sequences: &Sequences,
    rows: impl Into<Rows>,
    given: Backward,
    gradients: impl Into<Rows>,
) -> Result<()> {
    let (rows, to) = (rows.into(), gradients.into());
    let strides = [rows.query_stride, rows.key_stride, given.stride, to.query_stride, to.key_stride];
    let form = Form::new(run, shape, &strides)?;
    let work = sequences.work(run, form.positions(), form.split())?;
    let Rows { query, key, value, query_stride, key_stride } = rows;
    let Backward { out, d_out, stride, lse, delta } = given;
    let passes = if form.sm90 {
        [
            ("attention/backward_q_sm90", geometry::BACKWARD_Q_SM90),
            ("attention/backward_kv_sm90", geometry::BACKWARD_KV_SM90),
        ]
    } else {
        [("attention/backward", geometry::BACKWARD.of_features(form.head_dim)); 2]
    };
    let defines = form.defines();

    // The pass over queries writes delta, which the other reads.
    let addresses = [query, key, value, out, d_out, lse, to.query, delta, work.queries];
    let arguments = shape.arguments(addresses, [query_stride, key_stride, stride, stride, to.query_stride]);
    let (unit, block) = passes[0];
    let kernel = (unit, "attention_backward_q", &defines[..]);
    launch(run, form, shape, kernel, block, work.n_queries, arguments)?;

    let addresses = [query, key, value, d_out, lse, delta, to.key, to.value, work.keys];
    let mut arguments = shape.arguments(addresses, [query_stride, key_stride, stride, to.key_stride]);
    let (items, (unit, block)) = (work.n_keys * shape.n_kv, passes[1]);
    // Sizes alone decide, because the sums' last bits depend on it.
    // A window has few queries a tile of keys, and parts of them cost more than they save.
    if form.sm90 && items <= FEW_KEY_ITEMS_SM90 && shape.window.is_none() {
        arguments.extend([Arg::size(items), Arg::size(shape.n_kv)]);
        let function = run.kernel(unit, "attention_backward_kv_parts", &defines)?;
        let grid = items * KEY_PARTS_SM90;
        return run.launch_early(function, grid, block.threads, block.shared, &arguments);
    }
    let kernel = (unit, "attention_backward_kv", &defines[..]);
    launch(run, form, shape, kernel, block, work.n_keys, arguments)
}
