//! The experts of a step. Their products are launches of `experts_sm90.cu` and `experts_wide_sm90.cu` on Hopper for
//! MXFP4 on the card, else of `experts.cu`. A decoder with room for more than `MANY_ROWS` sequences takes training's grouped
//! products on Hopper, which add in another order: they decode a weight once for 64 rows of an expert and not once for 8.
//! With 128 sequences they take as long (docs/benchmarks.md).

use descant_quant::{Packing, nf4};

use super::bound::{Bound, EXPERT_COLUMNS, PathFactors};
use super::step::Program;
use super::types::MANY_ROWS;
use crate::cuda::geometry::{
    EXPERT_RANKS, EXPERT_ROWS, STEP_ALONE, STEP_COLUMNS, STEP_EXPERTS, STEP_EXPERTS_BLOCKS,
    STEP_EXPERTS_SM90, STEP_GROUP, STEP_STAGES, STEP_WIDE, STEP_WIDE_COLUMNS, step_row, step_stage,
    step_wide_rings, step_wide_rows,
};
use crate::cuda::plain::STEP_ROW;
use crate::cuda::table::{step_experts_sm90, step_wide};
use crate::cuda::{Arg, CudaError, Define, Result, Run};
use crate::op::experts::cuda::{self as grouped, Output, Sorted, grouped_arguments};
use crate::op::experts::matrices::{ExpertData, Experts};
use crate::op::route::cuda as route;
use crate::site::PerPath;

/// Rows of a step, and of an expert on average, beyond which Hopper takes the form for many rows of an expert: on an
/// H200 that took 164 us a layer of the 20b with 48 rows, where the other took 152, and 174 with 64 (189). Both have
/// the same bits.
const ROWS_OF_FEW: usize = 32;
const PAIRS_OF_FEW: usize = 7;

impl Program {
    /// The experts of a layer, and the sum of what they say.
    pub(super) fn experts(&self, run: &Run<'_>, layer: &Bound, rows: usize) -> Result<()> {
        let (at, of, frozen) = (&self.at, &self.sizes, &layer.frozen);
        let pairs = rows * of.top_k;
        let sorted = |data, stride, pairs_at| Sorted {
            data,
            stride,
            pairs: pairs_at,
            top_k: of.top_k,
            offsets: at.offsets,
            places: pairs,
            is_apart: true,
        };
        let low_rank = |of: PathFactors, u| (of.columns > 0).then_some((u, of.b));
        let PerPath { gate_up: gate_up_path, down: down_path, .. } = layer.paths;
        let gate_up = frozen.gate_up(&layer.sizes);
        let to = Output {
            bias: Some(frozen.gate_up_bias),
            low_rank: low_rank(gate_up_path, at.u.gate_up),
            out: None,
            swiglu: Some((at.inner, layer.limit)),
        };
        // Rows of `gathered` are one a token, else one a place.
        let low_rank_rows = |x, factors: PathFactors, inputs, u, gathered: bool, early: bool| {
            run.stage("experts low rank", 0.0, 0.0, || {
                let addresses = [x, factors.a, at.experts, at.pairs, at.adapted, u];
                let top_k = if gathered { of.top_k } else { 0 };
                let sizes = [inputs, factors.columns, of.expert_columns, of.top_k, top_k, early.into()];
                let arguments = Arg::list(addresses, sizes);
                let kernel = run.kernel("decode/rows", "expert_rows", &[])?;
                let grid = (pairs, of.expert_rank.div_ceil(EXPERT_RANKS));
                run.launch_early(kernel, grid, EXPERT_ROWS.threads, 0, &arguments)
            })
        };
        let is_grouped = at.many.is_some_and(|rows| rows > MANY_ROWS) && self.are_grouped(run, layer);
        let step = Step {
            rows,
            columns: of.expert_columns,
            is_chosen: gate_up_path.columns > 0,
            is_on_host: layer.experts_on_host,
        };
        let multiply = |x: &Sorted, experts: &Experts, to: &Output, step| {
            if is_grouped {
                return grouped::product(run, x, experts, experts.forward_side(), to);
            }
            product(run, x, experts, to, step)
        };
        let x = if is_grouped {
            run.stage("rows in order", 0.0, 0.0, || {
                route::take(run, at.normed, at.places, at.expert_out, [rows, of.hidden, of.top_k])
            })?;
            sorted(at.expert_out, of.hidden, None)
        } else {
            sorted(at.normed, of.hidden, Some(at.pairs))
        };
        if gate_up_path.columns > 0 {
            low_rank_rows(x.data, gate_up_path, of.hidden, at.u.gate_up, !is_grouped, false)?;
        }
        let share = pairs.min(of.experts) as f64 / of.experts as f64;
        run.stage("experts gate_up", 0.0, share * gate_up.bytes() as f64, || {
            multiply(&x, &gate_up, &to, step)
        })?;
        if down_path.columns > 0 {
            // The down product's experts were chosen before the gate and up product began.
            low_rank_rows(at.inner, down_path, of.inner, at.u.down, false, true)?;
        }
        let down = frozen.down(&layer.sizes);
        let to = Output {
            bias: Some(frozen.down_bias),
            low_rank: low_rank(down_path, at.u.down),
            out: Some(at.expert_out),
            swiglu: None,
        };
        run.stage("experts down", 0.0, share * down.bytes() as f64, || {
            let x = sorted(at.inner, of.inner, None);
            multiply(&x, &down, &to, Step { is_chosen: true, ..step })
        })?;
        run.stage("combine", 0.0, 0.0, || {
            let addresses = [at.expert_out, at.weights, at.places, at.middle, at.x];
            let arguments = Arg::list(addresses, [of.hidden, of.top_k]);
            let kernel = run.kernel("decode/rows", "add_experts", &[])?;
            run.launch_early(kernel, (STEP_ROW.over(of.hidden / 8), rows), STEP_ROW.threads, 0, &arguments)
        })
    }

    /// Whether training's products read the layer's experts as they lie.
    fn are_grouped(&self, run: &Run<'_>, layer: &Bound) -> bool {
        let of = &self.sizes;
        run.gpu().is_hopper()
            && !layer.experts_on_host
            && [of.hidden, of.inner].iter().all(|n| n.is_multiple_of(32))
    }
}

/// A step's rows, as the products take them.
#[derive(Debug, Clone, Copy)]
struct Step {
    rows: usize,
    /// Columns of low-rank rows, 0 for none.
    columns: usize,
    /// Whether the experts were chosen before the kernel before this one began, so that their weights may come while it
    /// is still at work.
    is_chosen: bool,
    /// Whether the weights are read from the host's memory, which bulk copies were not tried with.
    is_on_host: bool,
}

/// Each row times its expert's matrix, which is packed by output. Low-rank rows are by pair where the rows of `a` are
/// gathered, and have the `columns` of the step.
fn product(run: &Run<'_>, a: &Sorted, experts: &Experts, to: &Output, step: Step) -> Result<()> {
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
        if are_many && n_out.is_multiple_of(STEP_WIDE_COLUMNS) && wide_rows >= STEP_GROUP {
            let kernel = run.kernel("decode/experts_wide_sm90", "step_experts", &step_wide(rank, n_in))?;
            let shared = step_wide_rings(n_in, rank) + wide_rows * step_row(n_in);
            return run.launch_early(kernel, multiprocessors, STEP_WIDE.threads, shared as u32, &arguments);
        }
        // Who finishes tiles is fewer of them behind than a group of rows has.
        if n_out >= STEP_COLUMNS * STEP_STAGES as usize {
            let kernel = run.kernel("decode/experts_sm90", "step_experts", &step_experts_sm90(rank, n_in))?;
            let rows = step.rows.min(STEP_GROUP);
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
    // There is no form without low-rank rows.
    let rank = step.columns.max(EXPERT_COLUMNS[1]);
    let defines: [Define; 1] = [("RANK", rank as i64)];
    let kernel = run.kernel(unit, "step_experts", &defines)?;
    let shared = (STEP_GROUP * n_in * 2) as u32;
    run.launch_early(kernel, STEP_EXPERTS_BLOCKS * multiprocessors, STEP_EXPERTS.threads, shared, &arguments)
}
