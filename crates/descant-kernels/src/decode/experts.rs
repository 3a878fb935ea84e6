//! The experts' products of a step: launches of `experts.cu`.

use descant_quant::{Packing, nf4};

use crate::cuda::geometry::STEP_EXPERTS;
use crate::cuda::{CudaError, Define, Result, Run};
use crate::op::experts::RANK_WIDTH;
use crate::op::experts::cuda::{ExpertData, Experts, Output, Sorted, grouped_arguments};

/// Columns that low-rank rows may have.
const RANKS: [usize; 2] = [16, RANK_WIDTH];
/// Rows of a group, and groups of rows of an expert at once.
const GROUP: usize = 8;
const GROUPS: [usize; 2] = [1, 2];
/// Blocks a multiprocessor.
const BLOCKS: u32 = 2;

/// How many columns low-rank rows of this rank have.
pub(super) fn columns(rank: usize) -> Option<usize> {
    RANKS.into_iter().find(|columns| rank <= *columns)
}

/// Each row times its expert's matrix, which is packed by output. Low-rank rows are by pair where the rows of `a` are
/// gathered, and have the `columns` of the step.
pub(super) fn product(
    run: &Run<'_>,
    a: &Sorted,
    experts: &Experts,
    to: &Output,
    columns: usize,
    rows: usize,
) -> Result<()> {
    let ExpertData::Packed(data) = experts.data else {
        return Err(CudaError::backend("a step of experts that are not packed"));
    };
    let (n_in, n_out) = (experts.columns, experts.rows);
    let unit = match data.packing() {
        Packing::Nf4 if !n_in.is_multiple_of(nf4::BLOCK) => {
            let what = format!("NF4 in lines of {n_in}, which blocks of {} do not divide", nf4::BLOCK);
            return Err(CudaError::NoKernel { operator: "experts", what });
        }
        Packing::Nf4 => "decode/experts_nf4",
        Packing::Mxfp4 | Packing::Plain => "decode/experts",
    };
    // Other cards than Hopper have not the shared memory for more rows at once.
    let groups = if rows > GROUP && run.gpu().is_hopper() { GROUPS[1] } else { GROUPS[0] };
    let rank = if columns == 0 { RANKS[0] } else { columns };
    let defines: [Define; 2] = [("RANK", rank as i64), ("GROUPS", groups as i64)];
    let kernel = run.kernel(unit, "step_experts", &defines)?;
    let arguments = grouped_arguments(a, data.pieces(), experts.count, [n_in, n_out], to);
    let shared = (groups * GROUP * n_in * 2) as u32;
    let grid = BLOCKS * run.gpu().multiprocessors();
    run.launch_early(kernel, grid, STEP_EXPERTS.threads, shared, &arguments)
}
