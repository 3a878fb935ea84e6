//! Products of rows in E4M3 with packed experts, on Hopper: the launch. A result is that of the rows as they were rounded
//! but for the order of its sum; weights are exact.

use super::RANK_WIDTH;
use super::cuda::{Output, check, tile_boxes};
use super::fp8_rows::{Fp8Rows, RowFactors};
use super::matrices::{ExpertData, Experts, PackedData, Side};
use crate::cuda::boxes::{BoxElement, Boxes};
use crate::cuda::geometry::{PACKED_FP8_SM90, PACKED_STEP_FP8, ROW_BOX};
use crate::cuda::{Arg, CudaError, Result, Run};

/// The clamped SwiGLU of a result in E4M3, `[places, out / 2]` in the order of `fp8.cuh`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounded {
    pub(crate) to: u64,
    /// What its numbers are multiplied with when they are read.
    pub(crate) factor: f32,
    /// Of SwiGLU.
    pub(crate) limit: f32,
}

/// Half of a step: the sum has whole ones.
const HALF_STEP: usize = PACKED_STEP_FP8 as usize / 2;

/// Each row times its expert's matrix, whose scales have these references.
pub(crate) fn product(
    run: &Run<'_>,
    a: &Fp8Rows,
    experts: &Experts,
    references: u64,
    side: Side,
    to: &Output,
    h8: Option<Rounded>,
) -> Result<()> {
    let (n_in, n_out) = experts.sizes(side);
    check(n_in, n_out, n_in, experts.count)?;
    let ExpertData::Packed(PackedData::Mxfp4 { blocks, scales }) = experts.data else {
        return Err(none(format!("{:?}", experts.data.packing())));
    };
    if !n_in.is_multiple_of(HALF_STEP) {
        return Err(none(format!("sums of {n_in}")));
    }
    let kernel = run.kernel("experts/fp8_sm90", side.entry(), &[side.define()])?;
    let rows = |address: u64, element: BoxElement, columns: usize| {
        Boxes { address, element, rows: a.places, columns, stride: columns, height: ROW_BOX }.map()
    };
    let [weights, of_scales] = tile_boxes(experts, [blocks, scales], side, PACKED_STEP_FP8);
    let of_a = rows(a.data, BoxElement::E4m3, n_in)?;
    let (u, v) = match to.low_rank {
        Some((u, v)) => (rows(u, BoxElement::Bf16, RANK_WIDTH)?, v),
        None => (of_a, 0),
    };
    let (factors, fixed) = match a.factors {
        RowFactors::Each(factors) => (factors, 1.0),
        RowFactors::Fixed(factor) => (0, factor),
    };
    let (h, limit) = to.swiglu.unwrap_or((0, h8.map_or(0.0, |h8| h8.limit)));
    let (h8, h8_scale) = h8.map_or((0, 1.0), |h8| (h8.to, h8.factor.recip()));
    let mut arguments = [of_a, weights.map()?, of_scales.map()?, u].map(Arg::Tensor).to_vec();
    let addresses = [references, factors, to.bias.unwrap_or(0), v, a.offsets, to.out.unwrap_or(0), h];
    arguments.extend(Arg::list(addresses, [experts.count, n_out, n_in]));
    arguments.extend([Arg::F32(limit), Arg::Ptr(h8), Arg::F32(fixed), Arg::F32(h8_scale)]);
    let block = PACKED_FP8_SM90;
    run.launch_early(kernel, run.gpu().multiprocessors(), block.threads, block.shared, &arguments)
}

fn none(what: String) -> CudaError {
    CudaError::NoKernel { operator: "experts in fp8", what }
}
