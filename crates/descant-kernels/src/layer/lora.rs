//! Launches of `lora.cu`.

use super::flow::Pair;
use crate::cuda::{Arg, Result, Run};
use crate::experts::cuda::RANK_WIDTH;

const UNIT: &str = "layer/lora";
const BLOCK: usize = 256;

fn blocks(n: usize) -> usize {
    n.div_ceil(BLOCK)
}

/// Writes an f32 matrix of `shape` as bf16 into rows of `ld`, beginning at row and column `at`.
pub(super) fn pack(
    run: &Run<'_>,
    from: u64,
    to: u64,
    shape: [usize; 2],
    at: [usize; 2],
    ld: usize,
    factor: f32,
) -> Result<()> {
    part(run, "pack", from, to, shape, at, ld, factor)
}

/// Reads an f32 matrix of `shape` out of rows of `ld`, beginning at row and column `at`.
pub(super) fn unpack(
    run: &Run<'_>,
    from: u64,
    to: u64,
    shape: [usize; 2],
    at: [usize; 2],
    ld: usize,
    factor: f32,
) -> Result<()> {
    part(run, "unpack", from, to, shape, at, ld, factor)
}

/// A kernel that moves a matrix of `shape` into or out of a wider one; both directions take the same arguments.
fn part(
    run: &Run<'_>,
    entry: &'static str,
    from: u64,
    to: u64,
    shape: [usize; 2],
    at: [usize; 2],
    ld: usize,
    factor: f32,
) -> Result<()> {
    let [rows, columns] = shape;
    let arguments = [
        Arg::Ptr(from),
        Arg::Ptr(to),
        Arg::size(rows),
        Arg::size(columns),
        Arg::size(at[0]),
        Arg::size(at[1]),
        Arg::size(ld),
        Arg::F32(factor),
    ];
    run.launch(run.kernel(UNIT, entry, &[])?, blocks(rows * columns), BLOCK, 0, &arguments)
}

/// Writes an expert matrix, one an expert, of `shape` (after transposing) as bf16 with padded columns.
pub(super) fn pack_experts(
    run: &Run<'_>,
    from: u64,
    to: u64,
    n_experts: usize,
    shape: [usize; 2],
    transposed: bool,
    factor: f32,
) -> Result<()> {
    let [rows, columns] = shape;
    let arguments = [
        Arg::Ptr(from),
        Arg::Ptr(to),
        Arg::size(rows),
        Arg::size(columns),
        Arg::size(RANK_WIDTH),
        Arg::I32(transposed.into()),
        Arg::F32(factor),
    ];
    let grid = (blocks(rows * RANK_WIDTH), n_experts);
    run.launch(run.kernel(UNIT, "pack_experts", &[])?, grid, BLOCK, 0, &arguments)
}

/// Multiplies each pair's padded row by the router's weight of the pair.
pub(super) fn weigh_rows(run: &Run<'_>, x: u64, pairs: u64, weights: u64, n_pairs: usize) -> Result<()> {
    let n = n_pairs * RANK_WIDTH;
    let arguments = [Arg::Ptr(x), Arg::Ptr(pairs), Arg::Ptr(weights), Arg::size(n), Arg::size(RANK_WIDTH)];
    run.launch(run.kernel(UNIT, "weigh_rows", &[])?, blocks(n), BLOCK, 0, &arguments)
}

/// The router's weight with its pair merged, f32.
pub(super) fn merge_router(
    run: &Run<'_>,
    weight: u64,
    pair: Pair,
    to: u64,
    n_experts: usize,
    hidden: usize,
) -> Result<()> {
    let arguments = [
        Arg::Ptr(weight),
        Arg::Ptr(pair.a),
        Arg::Ptr(pair.b),
        Arg::Ptr(to),
        Arg::size(n_experts),
        Arg::size(hidden),
        Arg::size(pair.rank),
        Arg::F32(pair.scaling),
    ];
    run.launch(run.kernel(UNIT, "merge_router", &[])?, blocks(n_experts * hidden), BLOCK, 0, &arguments)
}

/// The gradient of the whole router weight, `[experts, hidden]`, f32, from those of the chosen logits.
pub(super) fn router_gradient(
    run: &Run<'_>,
    d_logits: u64,
    experts: u64,
    x: u64,
    to: u64,
    [n_tokens, hidden, n_experts, top_k]: [usize; 4],
) -> Result<()> {
    let arguments = [
        Arg::Ptr(d_logits),
        Arg::Ptr(experts),
        Arg::Ptr(x),
        Arg::Ptr(to),
        Arg::size(n_tokens),
        Arg::size(hidden),
        Arg::size(top_k),
    ];
    let grid = (blocks(hidden), n_experts);
    run.launch(run.kernel(UNIT, "router_gradient", &[])?, grid, BLOCK, 0, &arguments)
}

/// The gradients of the router's pair from that of the whole weight: dB = s G A^T, dA = s B^T G.
pub(super) fn router_pair_gradient(
    run: &Run<'_>,
    whole: u64,
    pair: Pair,
    da: u64,
    db: u64,
    n_experts: usize,
    hidden: usize,
) -> Result<()> {
    let sizes = [Arg::size(n_experts), Arg::size(hidden), Arg::size(pair.rank), Arg::F32(pair.scaling)];
    let pointers = |to: u64| [Arg::Ptr(whole), Arg::Ptr(pair.a), Arg::Ptr(pair.b), Arg::Ptr(to)];
    let arguments = |to: u64| [pointers(to), sizes].concat();
    let grid = blocks(pair.rank * hidden);
    run.launch(run.kernel(UNIT, "router_gradient_a", &[])?, grid, BLOCK, 0, &arguments(da))?;
    let grid = blocks(n_experts * pair.rank);
    run.launch(run.kernel(UNIT, "router_gradient_b", &[])?, grid, BLOCK, 0, &arguments(db))
}
