//! The experts' products of a step: launches of `experts_sm90.cu` and `experts_wide_sm90.cu` on
//! Hopper for MXFP4 on the card, else of `experts.cu`.

use descant_quant::{Packing, nf4};

use crate::cuda::geometry::{
    STEP_ALONE, STEP_COLUMNS, STEP_EXPERTS, STEP_EXPERTS_SM90, STEP_STAGES, STEP_WIDE, STEP_WIDE_COLUMNS,
    step_row, step_stage, step_wide_rings, step_wide_rows,
};
use crate::cuda::table::{step_experts_sm90, step_wide};
use crate::cuda::{Arg, CudaError, Define, Result, Run};
use crate::op::experts::RANK_WIDTH;
use crate::op::experts::cuda::{ExpertData, Experts, Output, Sorted, grouped_arguments};

/// Columns that low-rank rows may have.
const RANKS: [usize; 2] = [16, RANK_WIDTH];
/// Rows of a group.
const GROUP: usize = 8;
/// Rows of a step, and of an expert on average, beyond which Hopper takes the form for many rows of an expert: on an
/// H200 that took 164 us a layer of the 20b with 48 rows, where the other took 152, and 174 with 64 (189). Both have
/// the same bits.
const ROWS_OF_FEW: usize = 32;
const PAIRS_OF_FEW: usize = 7;
/// Blocks a multiprocessor of `experts.cu`.
const BLOCKS: u32 = 2;

/// How many columns low-rank rows of this rank have.
pub(super) fn columns(rank: usize) -> Option<usize> {
    RANKS.into_iter().find(|columns| rank <= *columns)
}

/// A step's rows, as the products take them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) rows: usize,
    /// Columns of low-rank rows, 0 for none.
    pub(super) columns: usize,
    /// Whether the experts were chosen before the kernel before this one began, so that their weights may come while it
    /// is still at work.
    pub(super) is_chosen: bool,
    /// Whether the weights are read from the host's memory, which bulk copies were not tried with.
    pub(super) is_on_host: bool,
}

/// Each row times its expert's matrix, which is packed by output. Low-rank rows are by pair where the rows of `a` are
/// gathered, and have the `columns` of the step.
pub(super) fn product(run: &Run<'_>, a: &Sorted, experts: &Experts, to: &Output, step: Step) -> Result<()> {
    let ExpertData::Packed(data) = experts.data else {
        return Err(CudaError::backend("a step of experts that are not packed"));
    };
    let (n_in, n_out) = (experts.columns, experts.rows);
    let arguments = grouped_arguments(a, data.pieces(), experts.count, [n_in, n_out], to);
    let multiprocessors = run.gpu().multiprocessors();
    if run.gpu().is_hopper() && matches!(data.packing(), Packing::Mxfp4) && !step.is_on_host {
        let rank = if to.low_rank.is_some() { step.columns } else { 0 };
        let arguments = [&arguments[..], &[Arg::I32(step.is_chosen.into())]].concat();
        let wide_rows = step_wide_rows(n_in, rank);
        let are_many = step.rows > ROWS_OF_FEW && a.places > PAIRS_OF_FEW * experts.count;
        if are_many && n_out.is_multiple_of(STEP_WIDE_COLUMNS) && wide_rows >= GROUP {
            let kernel = run.kernel("decode/experts_wide_sm90", "step_experts", &step_wide(rank, n_in))?;
            let shared = step_wide_rings(n_in, rank) + wide_rows * step_row(n_in);
            return run.launch_early(kernel, multiprocessors, STEP_WIDE.threads, shared as u32, &arguments);
        }
        // Who finishes tiles is fewer of them behind than a group of rows has.
        if n_out >= STEP_COLUMNS * STEP_STAGES as usize {
            let kernel = run.kernel("decode/experts_sm90", "step_experts", &step_experts_sm90(rank, n_in))?;
            let rows = step.rows.min(GROUP);
            let shared = STEP_STAGES as usize * step_stage(n_in, rank) + rows * step_row(n_in);
            let (threads, shared) = (STEP_EXPERTS_SM90.threads, (shared as u32).max(STEP_ALONE));
            return run.launch_early(kernel, multiprocessors, threads, shared, &arguments);
        }
    }
    let unit = match data.packing() {
        Packing::Nf4 if !n_in.is_multiple_of(nf4::BLOCK) => {
            let what = format!("NF4 in lines of {n_in}, which blocks of {} do not divide", nf4::BLOCK);
            return Err(CudaError::NoKernel { operator: "experts", what });
        }
        Packing::Nf4 => "decode/experts_nf4",
        Packing::Mxfp4 | Packing::Plain => "decode/experts",
    };
    let rank = if step.columns == 0 { RANKS[0] } else { step.columns };
    let defines: [Define; 1] = [("RANK", rank as i64)];
    let kernel = run.kernel(unit, "step_experts", &defines)?;
    let shared = (GROUP * n_in * 2) as u32;
    run.launch_early(kernel, BLOCKS * multiprocessors, STEP_EXPERTS.threads, shared, &arguments)
}
