//! Bytes of what low-rank paths need: packed factors, rows by them, and what gradients work in.

use super::sizes::Plan;
use crate::op::experts::{LowRank, RANK_WIDTH};
use crate::site::{DensePath, ExpertPath};

const BF16: usize = 2;

/// The side of a matrix that a factor has a line for: A for its inputs, B for its outputs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Inputs,
    Outputs,
}

impl Side {
    fn of(self, [outputs, inputs]: [usize; 2]) -> usize {
        match self {
            Self::Inputs => inputs,
            Self::Outputs => outputs,
        }
    }
}

/// A packed factor of a dense path.
pub(super) fn dense_factor(p: &Plan, path: DensePath, side: Side) -> usize {
    p.paths[path] * side.of(p.sizes.product(path)) * BF16
}

/// A row of a dense path for each token.
pub(super) fn dense_rows(p: &Plan, path: DensePath) -> usize {
    p.tokens * p.paths[path] * BF16
}

/// A packed factor of an expert pair.
pub(super) fn expert_factor(p: &Plan, path: ExpertPath, side: Side) -> usize {
    let features = side.of(p.sizes.matrix(path.site()));
    if p.paths[path] > 0 { p.sizes.n_experts * features * RANK_WIDTH * BF16 } else { 0 }
}

/// A packed row of an expert pair's rank for each pair of token and expert.
pub(super) fn expert_rows(p: &Plan, path: ExpertPath) -> usize {
    if p.paths[path] > 0 { p.pairs() * RANK_WIDTH * BF16 } else { 0 }
}

/// The most that a gradient of an expert pair works in.
pub(super) fn partial(p: &Plan) -> usize {
    let part = |path: ExpertPath, features| {
        let sizes = LowRank { experts: p.sizes.n_experts, features, rank: p.paths[path] };
        if p.paths[path] > 0 { sizes.workspace(p.pairs()) } else { 0 }
    };
    let of_pair = |path: ExpertPath| p.sizes.matrix(path.site()).map(|features| part(path, features));
    ExpertPath::ALL.into_iter().flat_map(of_pair).max().unwrap_or(0)
}
