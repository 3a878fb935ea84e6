//! Launches of `lora.cu`.

use super::factors::{ExpertFactor, Pair, Stored, Whole};
use crate::cuda::geometry::PACKED_FACTORS;
use crate::cuda::plain::EACH;
use crate::cuda::structures::{ALL_PACKED_BYTES, PACKED_BYTES};
use crate::cuda::{Arg, Result, Run};
use crate::op::experts::RANK_WIDTH;

const UNIT: &str = "layer/lora";
/// Columns of 16 bytes, which a thread makes of an expert's matrix.
const PIECE: usize = 8;

/// Bytes of a C struct whose fields are written one after the other.
#[derive(Debug, Default)]
pub(super) struct Fields(pub(super) Vec<u8>);

impl Fields {
    pub(super) fn pointer(&mut self, address: u64) -> &mut Self {
        self.0.extend(address.to_le_bytes());
        self
    }

    pub(super) fn sizes(&mut self, sizes: &[usize]) -> &mut Self {
        let bytes = |n: &usize| i32::try_from(*n).expect("adapters are small").to_le_bytes();
        self.0.extend(sizes.iter().flat_map(bytes));
        self
    }

    pub(super) fn factor(&mut self, factor: f32) -> &mut Self {
        self.0.extend(factor.to_le_bytes());
        self
    }

    /// Zeros up to where a struct of so many bytes ends.
    pub(super) fn fill(&mut self, bytes: usize) {
        assert!(self.0.len() <= bytes, "more parts than the kernel has room for");
        self.0.resize(bytes, 0);
    }
}

/// Writes each whole as bf16, zero where there is no part.
pub(crate) fn pack(run: &Run<'_>, wholes: &[Whole]) -> Result<()> {
    for wholes in wholes.chunks(PACKED_FACTORS) {
        let mut fields = Fields::default();
        for (n, whole) in wholes.iter().enumerate() {
            fields.pointer(whole.address).sizes(&whole.shape).sizes(&[whole.parts.len(), 0]);
            for part in &whole.parts {
                fields.pointer(part.address).sizes(&part.at).sizes(&part.shape).factor(part.factor);
                fields.sizes(&[usize::from(whole.stored == Stored::Transposed)]);
            }
            fields.fill((n + 1) * PACKED_BYTES);
        }
        fields.fill(ALL_PACKED_BYTES);
        let largest = wholes.iter().map(|whole| whole.shape[0] * whole.shape[1]).max().unwrap_or(0);
        let grid = (EACH.over(largest), wholes.len());
        run.launch_early(run.kernel(UNIT, "pack", &[])?, grid, EACH.threads, 0, &[Arg::Struct(&fields.0)])?;
    }
    Ok(())
}

/// Writes a factor as bf16 with columns padded to `width`.
pub(crate) fn pack_experts(
    run: &Run<'_>,
    of: ExpertFactor,
    to: u64,
    n_experts: usize,
    width: usize,
) -> Result<()> {
    let [rows, columns] = of.shape;
    assert!(width.is_multiple_of(PIECE), "rows begin at 16 bytes");
    let mut arguments = Arg::list([of.address, to], [rows, columns, width]);
    arguments.extend([Arg::I32((of.stored == Stored::Transposed).into()), Arg::F32(of.factor)]);
    let grid = (EACH.over(rows * width / PIECE), n_experts);
    run.launch(run.kernel(UNIT, "pack_experts", &[])?, grid, EACH.threads, 0, &arguments)
}

/// Multiplies each pair's padded row of both matrices by the router's weight of the pair.
pub(super) fn weigh_rows(
    run: &Run<'_>,
    of: [u64; 2],
    pairs: u64,
    weights: u64,
    [n_pairs, rank]: [usize; 2],
) -> Result<()> {
    let arguments = Arg::list([of[0], of[1], pairs, weights], [n_pairs, rank, RANK_WIDTH]);
    let grid = (EACH.over(n_pairs * rank.div_ceil(PIECE)), of.len());
    run.launch(run.kernel(UNIT, "weigh_rows", &[])?, grid, EACH.threads, 0, &arguments)
}

/// The router's weight with its pair merged, f32.
pub(crate) fn merge_router(
    run: &Run<'_>,
    weight: u64,
    pair: Pair,
    to: u64,
    n_experts: usize,
    hidden: usize,
) -> Result<()> {
    let mut arguments = Arg::list([weight, pair.a, pair.b, to], [n_experts, hidden, pair.rank]);
    arguments.push(Arg::F32(pair.scaling));
    run.launch(
        run.kernel(UNIT, "merge_router", &[])?,
        EACH.over(n_experts * hidden),
        EACH.threads,
        0,
        &arguments,
    )
}

/// What the gradient of the router's weight is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct RouterGradient {
    /// Gradient of the chosen logits, and the expert of each.
    pub(super) d_logits: u64,
    pub(super) experts: u64,
    /// What the router read.
    pub(super) x: u64,
}

/// The gradient of the whole router weight, `[experts, hidden]`, f32, from those of the chosen logits; with `add` the
/// sum begins with what is there.
pub(super) fn router_gradient(
    run: &Run<'_>,
    of: RouterGradient,
    to: u64,
    add: bool,
    [n_tokens, hidden, n_experts, top_k]: [usize; 4],
) -> Result<()> {
    let addresses = [of.d_logits, of.experts, of.x, to];
    let arguments = Arg::list(addresses, [usize::from(add), n_tokens, hidden, top_k]);
    let grid = (EACH.over(hidden), n_experts);
    run.launch(run.kernel(UNIT, "router_gradient", &[])?, grid, EACH.threads, 0, &arguments)
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
    let arguments = |to: u64| {
        let mut arguments = Arg::list([whole, pair.a, pair.b, to], [n_experts, hidden, pair.rank]);
        arguments.push(Arg::F32(pair.scaling));
        arguments
    };
    let grid = EACH.over(pair.rank * hidden);
    run.launch(run.kernel(UNIT, "router_gradient_a", &[])?, grid, EACH.threads, 0, &arguments(da))?;
    let grid = EACH.over(n_experts * pair.rank);
    run.launch(run.kernel(UNIT, "router_gradient_b", &[])?, grid, EACH.threads, 0, &arguments(db))
}
