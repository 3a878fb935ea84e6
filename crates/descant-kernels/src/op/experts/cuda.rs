//! Launches of the grouped products: which form of a kernel serves which card and how many rows.

use descant_quant::mxfp4::{self, tiles};
use descant_quant::{Packing, nf4};

use super::matrices::{ExpertData, Experts, PackedData, Side};
use super::{GRADIENT_COLUMNS, LowRank, RANK_WIDTH};
use crate::cuda::boxes::{BoxElement, Boxes};
use crate::cuda::geometry::{
    self, Block, FEW_BLOCKS, LOW_RANK_SUM, MAX_EXPERTS, PACKED_COLUMNS, PACKED_STEP, ROW_BOX, WEIGHT_BOX,
};
use crate::cuda::{Arg, CudaError, Gpu, Result, Run};

/// Rows of an activation, sorted by expert.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sorted {
    /// `[*, stride]`, bf16.
    pub(crate) data: u64,
    /// Elements from a row to the next.
    pub(crate) stride: usize,
    /// `[places]`, i32, where row `pairs[place] / top_k` is meant; none where row `place` is.
    pub(crate) pairs: Option<u64>,
    pub(crate) top_k: usize,
    /// `[experts + 1]`, i32.
    pub(crate) offsets: u64,
    /// Number of places: what the last offset says.
    pub(crate) places: usize,
    /// Whether a place's result must not depend on how many others there are: then few have no form of their own.
    pub(crate) is_apart: bool,
}

/// What is added to a grouped product, and where it goes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Output {
    /// `[experts, out]`, bf16.
    pub(crate) bias: Option<u64>,
    /// `u [places, 64]` and `v [experts, out, 64]`, bf16: `+ u · v^T`.
    pub(crate) low_rank: Option<(u64, u64)>,
    /// `[places, out]`, bf16.
    pub(crate) out: Option<u64>,
    /// `[places, out / 2]`, bf16: the clamped SwiGLU of the result, with this limit.
    pub(crate) swiglu: Option<(u64, f32)>,
}

/// A form of the grouped kernel: file, kernel, its block, and blocks a multiprocessor.
struct Form {
    unit: &'static str,
    entry: &'static str,
    /// Whether the file has one kernel a side.
    by_side: bool,
    block: Block,
    blocks: u32,
}

/// Rows an expert has on average up to which reading the weights is all the work.
const FEW_ROWS: usize = 8;

/// Whether a product of so many rows reads packed matrices once, and only those that are chosen.
pub(crate) fn is_few(a: &Sorted, experts: usize, side: Side) -> bool {
    side == Side::Columns && a.places / experts.max(1) <= FEW_ROWS && !a.is_apart
}

fn form(run: &Run<'_>, experts: &Experts, side: Side, a: &Sorted) -> Form {
    let packing = experts.data.packing();
    if packing.is_packed() && is_few(a, experts.count, side) {
        let unit = if packing == Packing::Nf4 { "experts/few_nf4" } else { "experts/few" };
        let (entry, block) = ("experts_forward_few", geometry::FEW);
        return Form { unit, entry, by_side: false, block, blocks: FEW_BLOCKS };
    }
    let (unit, block) = match packing {
        Packing::Mxfp4 => ("experts/packed", geometry::PACKED),
        Packing::Nf4 => ("experts/packed_nf4", geometry::PACKED_NF4),
        Packing::Plain if run.gpu().is_hopper() => ("experts/grouped_sm90", geometry::GROUPED_SM90),
        Packing::Plain => ("experts/grouped", geometry::GROUPED),
    };
    Form { unit, entry: side.entry(), by_side: packing.is_packed(), block, blocks: 1 }
}

/// Whether the card's form for packed matrices reads its rows one a place: it takes others too, but slower.
pub(crate) fn wants_order(gpu: &Gpu) -> bool {
    gpu.is_hopper()
}

/// Each row times its expert's matrix.
pub(crate) fn product(run: &Run<'_>, a: &Sorted, experts: &Experts, side: Side, to: &Output) -> Result<()> {
    let (n_in, n_out) = experts.sizes(side);
    check(n_in, n_out, a.stride, experts.count)?;
    if let ExpertData::Packed(PackedData::Nf4 { .. }) = experts.data
        && !experts.columns.is_multiple_of(nf4::BLOCK)
    {
        let what =
            format!("NF4 in lines of {}, which blocks of {} do not divide", experts.columns, nf4::BLOCK);
        return Err(CudaError::NoKernel { operator: "experts", what });
    }
    if let ExpertData::Packed(data) = experts.data
        && a.pairs.is_none()
        && wants_order(run.gpu())
        && !is_few(a, experts.count, side)
    {
        return product_in_order(run, a, experts, &data, side, to);
    }
    let form = form(run, experts, side, a);
    let pieces = match experts.data {
        ExpertData::Packed(data) => data.pieces(),
        ExpertData::Bf16(data) => [data, 0, 0],
        ExpertData::Streamed(_) => {
            return Err(CudaError::backend("experts that stream were used without their slot"));
        }
    };
    let defines = [side.define()];
    let kernel = run.kernel(form.unit, form.entry, if form.by_side { &defines } else { &[] })?;
    let arguments = grouped_arguments(a, pieces, experts.count, [n_in, n_out], to);
    let grid = run.gpu().multiprocessors() * form.blocks;
    run.launch(kernel, grid, form.block.threads, form.block.shared, &arguments)
}

/// The arguments that the kernels of grouped products share, in their order; see `grouped.cu`.
pub(crate) fn grouped_arguments(
    a: &Sorted,
    [blocks, scales, tables]: [u64; 3],
    count: usize,
    [n_in, n_out]: [usize; 2],
    to: &Output,
) -> Vec<Arg<'static>> {
    let (u, v) = to.low_rank.unwrap_or((0, 0));
    let (h, limit) = to.swiglu.unwrap_or((0, 0.0));
    let (pairs, bias, out) = (a.pairs.unwrap_or(0), to.bias.unwrap_or(0), to.out.unwrap_or(0));
    let addresses = [a.data, pairs, blocks, scales, tables, bias, u, v, a.offsets, out, h];
    let mut arguments = Arg::list(addresses, [a.stride, a.top_k, count, n_out, n_in]);
    arguments.push(Arg::F32(limit));
    arguments
}

/// The same on Hopper, where tensor copies bring the operands.
fn product_in_order(
    run: &Run<'_>,
    a: &Sorted,
    experts: &Experts,
    data: &PackedData,
    side: Side,
    to: &Output,
) -> Result<()> {
    let (n_in, n_out) = experts.sizes(side);
    let (unit, block) = match data {
        PackedData::Mxfp4 { .. } => ("experts/packed_sm90", geometry::PACKED_SM90),
        PackedData::Nf4 { .. } => ("experts/packed_nf4_sm90", geometry::PACKED_NF4_SM90),
    };
    let [_, scales, tables] = data.pieces();
    let kernel = run.kernel(unit, side.entry(), &[side.define()])?;
    let rows = |address: u64, columns: usize, stride: usize| {
        Boxes { address, element: BoxElement::Bf16, rows: a.places, columns, stride, height: ROW_BOX }.map()
    };
    let weights = weight_boxes(experts, data, side);
    let [weights, of_scales] = [weights[0].map()?, weights[1].map()?];
    let a = (rows(a.data, n_in, a.stride)?, a.offsets);
    let (u, v) = match to.low_rank {
        Some((u, v)) => (rows(u, RANK_WIDTH, RANK_WIDTH)?, v),
        None => (a.0, 0),
    };
    let (h, limit) = to.swiglu.unwrap_or((0, 0.0));
    let mut arguments = [a.0, weights, of_scales, u].map(Arg::Tensor).to_vec();
    let addresses = [scales, tables, to.bias.unwrap_or(0), v, a.1, to.out.unwrap_or(0), h];
    arguments.extend(Arg::list(addresses, [experts.count, n_out, n_in]));
    arguments.push(Arg::F32(limit));
    run.launch_early(kernel, run.gpu().multiprocessors(), block.threads, block.shared, &arguments)
}

/// The packed bytes of a step and their scales, as its tensor copies bring them; NF4's scales come otherwise.
fn weight_boxes(experts: &Experts, data: &PackedData, side: Side) -> [Boxes; 2] {
    let lines = experts.count * experts.rows;
    match *data {
        PackedData::Mxfp4 { blocks, scales } => tile_boxes(experts, [blocks, scales], side, PACKED_STEP),
        PackedData::Nf4 { blocks, .. } => {
            let (element, bytes) = (BoxElement::U8, experts.columns / 2);
            [Boxes {
                address: blocks,
                element,
                rows: lines,
                columns: bytes,
                stride: bytes,
                height: WEIGHT_BOX,
            }; 2]
        }
    }
}

/// Tiles and scales of MXFP4, of a step of so many numbers of the sum.
pub(super) fn tile_boxes(experts: &Experts, [blocks, scales]: [u64; 2], side: Side, step: u32) -> [Boxes; 2] {
    // Along the sum, and across.
    let (wide, high) = match side {
        Side::Columns => (step, PACKED_COLUMNS),
        Side::Rows => (PACKED_COLUMNS, step),
    };
    let boxes = |address, bytes_of_block: usize| {
        let words = |numbers: usize| numbers / mxfp4::BLOCK * bytes_of_block / size_of::<u64>();
        Boxes {
            address,
            element: BoxElement::U64(words(wide as usize) as u32),
            rows: experts.count * experts.rows / tiles::ROWS,
            columns: words(experts.columns),
            stride: words(experts.columns),
            height: high / tiles::ROWS as u32,
        }
    };
    [boxes(blocks, mxfp4::BLOCK / tiles::COLUMNS * tiles::BYTES), boxes(scales, tiles::SCALE_BYTES)]
}

/// `out[place] = a[row(place)] · m[expert]`, with `m` `[experts, features, 64]` and `out` `[places, 64]`.
pub(crate) fn low_rank_rows(run: &Run<'_>, a: &Sorted, m: u64, out: u64, sizes: LowRank) -> Result<()> {
    check(sizes.features, RANK_WIDTH, a.stride, sizes.experts)?;
    let kernel = run.kernel("experts/low_rank", "low_rank_rows", &[])?;
    let addresses = [a.data, a.pairs.unwrap_or(0), m, a.offsets, out];
    let arguments = Arg::list(addresses, [a.stride, a.top_k, sizes.experts, sizes.features, sizes.rank]);
    let tiles = a.places.div_ceil(geometry::LOW_RANK_TILE) + sizes.experts;
    let block = geometry::LOW_RANK_ROWS;
    run.launch(kernel, tiles, block.threads, geometry::low_rank_rows_shared(sizes.rank), &arguments)
}

/// How the gradient of a factor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Factor {
    /// `[experts, rank, features]`, as `lora_A`.
    A,
    /// `[experts, features, rank]`, as `lora_B`.
    B,
}

/// Where a gradient is added: `grad += alpha · ...`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gradient {
    /// f32, laid out as `factor` says.
    pub(crate) grad: u64,
    pub(crate) factor: Factor,
    pub(crate) alpha: f32,
    /// Of [`LowRank::workspace`] bytes.
    pub(crate) workspace: u64,
}

/// `grad += alpha · y^T u` for each expert, with `u` `[places, 64]`.
pub(crate) fn low_rank_gradient(
    run: &Run<'_>,
    y: &Sorted,
    u: u64,
    to: Gradient,
    sizes: LowRank,
) -> Result<()> {
    check(sizes.features, RANK_WIDTH, y.stride, sizes.experts)?;
    let kernel = run.kernel("experts/low_rank", "low_rank_gradient", &[])?;
    let parts = sizes.parts(y.places);
    let addresses = [y.data, y.pairs.unwrap_or(0), u, y.offsets, to.grad, to.workspace];
    let mut arguments = Arg::list(addresses, [y.stride, y.top_k, sizes.features, sizes.rank]);
    arguments.extend([Arg::I32((to.factor == Factor::A).into()), Arg::F32(to.alpha)]);
    let grid = [sizes.features.div_ceil(GRADIENT_COLUMNS) as u32, sizes.experts as u32, parts as u32];
    let block = geometry::LOW_RANK_GRADIENT;
    run.launch(kernel, grid, block.threads, geometry::low_rank_stages(sizes.rank), &arguments)?;
    if parts == 1 {
        return Ok(());
    }
    let size = sizes.experts * sizes.features * sizes.rank;
    let sum = run.kernel("experts/low_rank", "low_rank_sum", &[])?;
    let arguments =
        [Arg::Ptr(to.workspace), Arg::Ptr(to.grad), Arg::size(size), Arg::size(parts), Arg::F32(to.alpha)];
    run.launch(sum, size.div_ceil(LOW_RANK_SUM.threads as usize), LOW_RANK_SUM.threads, 0, &arguments)
}

/// The kernels move 16 bytes, and count experts in shared memory.
pub(super) fn check(n_in: usize, n_out: usize, stride: usize, experts: usize) -> Result<()> {
    let fits = n_in.is_multiple_of(32) && n_out.is_multiple_of(32) && stride.is_multiple_of(8);
    if fits && experts <= MAX_EXPERTS {
        return Ok(());
    }
    let what = format!("{experts} matrices of {n_out} x {n_in}, rows {stride} apart");
    Err(CudaError::NoKernel { operator: "experts", what })
}
