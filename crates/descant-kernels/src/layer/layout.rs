//! Where a layer's buffers lie: in memory that is kept from forward to backward, or in scratch memory that the next
//! layer overwrites.
//!
//! Scratch has two stories. What both halves of the layer read stands below; above it the attention half and the
//! expert half use the same bytes one after the other. Sizes come from the same code that hands out places, so that
//! what is planned is what is used.

use super::plan::{ALIGNMENT, Kept, LayerSizes};
use crate::experts::{LowRank, RANK_WIDTH};
use crate::route::sort_bytes;
use crate::site::{PerSite, SiteKind};

/// Bytes of cuBLASLt's workspace.
pub(super) const WORKSPACE: u64 = 32 << 20;
/// Columns that low-rank paths of attention are padded to a multiple of.
const DENSE_COLUMNS: usize = 16;

/// Which low-rank paths a layer has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Paths {
    /// Columns of all ranks at query, key and value, padded; 0 for none.
    pub(super) input: usize,
    /// Columns of the rank at attention's output, padded; 0 for none.
    pub(super) output: usize,
    /// Rank at the router.
    pub(super) router: usize,
    /// Rank at the experts' first product.
    pub(super) gate_up: usize,
    /// Rank at the experts' second product.
    pub(super) down: usize,
}

impl Paths {
    /// Of the ranks at the sites; 0 for none.
    pub(super) fn new(ranks: &PerSite<usize>) -> Self {
        let columns = |rank: usize| rank.next_multiple_of(DENSE_COLUMNS);
        Self {
            input: columns(ranks[SiteKind::Query] + ranks[SiteKind::Key] + ranks[SiteKind::Value]),
            output: columns(ranks[SiteKind::Output]),
            router: ranks[SiteKind::Router],
            gate_up: ranks[SiteKind::GateUp],
            down: ranks[SiteKind::Down],
        }
    }
}

/// What is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) sizes: LayerSizes,
    pub(super) tokens: usize,
    pub(super) paths: Paths,
    pub(super) kept: Kept,
    /// Whether experts' products want their rows in order, so that those of tokens are copied first.
    pub(super) in_order: bool,
}

/// An address, once the beginnings of both memories are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum At {
    /// Nowhere: not used in this direction.
    #[default]
    None,
    /// This far into the kept memory.
    Kept(u64),
    /// This far into the scratch memory.
    Scratch(u64),
}

impl At {
    pub(super) fn address(self, kept: u64, scratch: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::Kept(offset) => kept + offset,
            Self::Scratch(offset) => scratch + offset,
        }
    }
}

/// Buffers of one direction. Names are those of the layer's formulas; see `cuda.rs`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Buffers {
    pub(super) workspace: At,
    pub(super) middle: At,
    pub(super) attended: At,
    pub(super) lse: At,
    pub(super) qkv: At,
    pub(super) pre: At,
    pub(super) experts: At,
    pub(super) weights: At,
    pub(super) pairs: At,
    pub(super) places: At,
    pub(super) offsets: At,
    pub(super) first_rms: At,
    pub(super) second_rms: At,
    pub(super) sort: At,
    pub(super) input_a: At,
    pub(super) input_b: At,
    pub(super) output_a: At,
    pub(super) output_b: At,
    pub(super) merged_router: At,
    pub(super) normed: At,
    pub(super) input_u: At,
    pub(super) output_u: At,
    pub(super) second_normed: At,
    /// Rows of tokens, one a pair, in order.
    pub(super) in_order: At,
    pub(super) logits: At,
    pub(super) gate_up_v: At,
    pub(super) down_v: At,
    pub(super) gate_up_u: At,
    pub(super) down_u: At,
    pub(super) inner: At,
    pub(super) expert_out: At,
    // Backward only.
    pub(super) d_inner: At,
    pub(super) d_expert_in: At,
    pub(super) d_weights: At,
    pub(super) d_logits: At,
    pub(super) gate_up_dv: At,
    pub(super) down_dv: At,
    pub(super) gate_up_du: At,
    pub(super) down_du: At,
    pub(super) d_router: At,
    pub(super) d_attended: At,
    pub(super) d_qkv: At,
    pub(super) delta: At,
    pub(super) d_input_u: At,
    pub(super) d_output_u: At,
    pub(super) d_normed: At,
    pub(super) d_dense_a: At,
    pub(super) d_dense_b: At,
    /// Partial sums of the experts' gradients.
    pub(super) partial: At,
    /// Bytes of scratch memory in all.
    pub(super) scratch_bytes: u64,
    /// Bytes of kept memory in all.
    pub(super) kept_bytes: u64,
}

/// Hands out places one after the other.
#[derive(Debug, Default)]
struct Bump {
    next: u64,
    most: u64,
}

impl Bump {
    fn take(&mut self, bytes: usize) -> u64 {
        let at = self.next;
        self.next += (bytes as u64).next_multiple_of(ALIGNMENT);
        self.most = self.most.max(self.next);
        at
    }
}

const BF16: usize = 2;
const F32: usize = 4;
const I32: usize = 4;

impl Plan {
    fn pairs(&self) -> usize {
        self.tokens * self.sizes.top_k
    }

    fn qkv(&self) -> usize {
        self.sizes.query + 2 * self.sizes.key_value
    }

    /// The buffers of the forward, with what is kept in kept memory.
    pub(super) fn forward(&self) -> Buffers {
        let mut out = Buffers::default();
        let mut scratch = Bump::default();
        self.lasting(&mut out, &mut scratch);
        let base = scratch.next;
        self.attention_half(&mut out, &mut scratch);
        scratch.next = base;
        self.expert_half(&mut out, &mut scratch, false);
        out.scratch_bytes = scratch.most;
        out
    }

    /// The buffers of the backward: those of the forward, which it may have to run again, and gradients.
    pub(super) fn backward(&self) -> Buffers {
        let (s, tokens) = (&self.sizes, self.tokens);
        let mut out = Buffers::default();
        let mut scratch = Bump::default();
        self.lasting(&mut out, &mut scratch);
        let base = scratch.next;
        self.expert_half(&mut out, &mut scratch, true);
        scratch.next = base;
        self.attention_half(&mut out, &mut scratch);
        let mut take = |bytes: usize| At::Scratch(scratch.take(bytes));
        out.d_attended = take(tokens * s.query * BF16);
        out.d_qkv = take(tokens * self.qkv() * BF16);
        out.delta = take(tokens * s.n_heads * F32);
        out.d_normed = take(tokens * s.hidden * BF16);
        out.d_input_u = take(tokens * self.paths.input * BF16);
        out.d_output_u = take(tokens * self.paths.output * BF16);
        let columns = self.paths.input.max(self.paths.output);
        out.d_dense_a = take(columns * s.hidden.max(s.query) * F32);
        out.d_dense_b = take(columns * s.hidden.max(self.qkv()) * F32);
        out.scratch_bytes = scratch.most;
        out
    }

    /// What both halves read, and what is kept.
    fn lasting(&self, out: &mut Buffers, scratch: &mut Bump) {
        let (s, tokens, pairs) = (&self.sizes, self.tokens, self.pairs());
        let mut kept = Bump::default();
        out.workspace = At::Scratch(scratch.take(WORKSPACE as usize));
        let mut place = |from: Kept, bytes: usize| {
            if self.kept >= from { At::Kept(kept.take(bytes)) } else { At::Scratch(scratch.take(bytes)) }
        };
        out.middle = place(Kept::Attention, tokens * s.hidden * BF16);
        out.attended = place(Kept::Attention, tokens * s.query * BF16);
        out.lse = place(Kept::Attention, tokens * s.n_heads * F32);
        out.qkv = place(Kept::Projections, tokens * self.qkv() * BF16);
        out.experts = place(Kept::Experts, pairs * I32);
        out.weights = place(Kept::Experts, pairs * F32);
        out.pairs = place(Kept::Experts, pairs * I32);
        out.places = place(Kept::Experts, pairs * I32);
        out.offsets = place(Kept::Experts, (s.n_experts + 1) * I32);
        if self.kept >= Kept::Experts {
            out.pre = place(Kept::Experts, pairs * 2 * s.inner * BF16);
        }
        out.kept_bytes = kept.most;
        let mut take = |bytes: usize| At::Scratch(scratch.take(bytes));
        out.first_rms = take(tokens * F32);
        out.second_rms = take(tokens * F32);
        out.input_a = take(self.paths.input * s.hidden * BF16);
        out.input_b = take(self.qkv() * self.paths.input * BF16);
        out.output_a = take(self.paths.output * s.query * BF16);
        out.output_b = take(s.hidden * self.paths.output * BF16);
        if self.paths.router > 0 {
            out.merged_router = take(s.n_experts * s.hidden * F32);
            out.d_router = take(s.n_experts * s.hidden * F32);
        }
    }

    fn attention_half(&self, out: &mut Buffers, scratch: &mut Bump) {
        let (s, tokens) = (&self.sizes, self.tokens);
        let mut take = |bytes: usize| At::Scratch(scratch.take(bytes));
        out.normed = take(tokens * s.hidden * BF16);
        out.input_u = take(tokens * self.paths.input * BF16);
        out.output_u = take(tokens * self.paths.output * BF16);
    }

    fn expert_half(&self, out: &mut Buffers, scratch: &mut Bump, backward: bool) {
        let (s, tokens, pairs) = (&self.sizes, self.tokens, self.pairs());
        let (hidden, inner, experts) = (s.hidden, s.inner, s.n_experts);
        let mut take = |bytes: usize| At::Scratch(scratch.take(bytes));
        let row = RANK_WIDTH * BF16;
        let (gate_up, down) = (self.paths.gate_up > 0, self.paths.down > 0);
        out.second_normed = take(tokens * hidden * BF16);
        out.logits = take(tokens * experts * F32);
        out.sort = take(sort_bytes(pairs, experts));
        if gate_up {
            out.gate_up_v = take(experts * 2 * inner * row);
            out.gate_up_dv = take(experts * hidden * row);
            out.gate_up_u = take(pairs * row);
        }
        if down {
            out.down_v = take(experts * hidden * row);
            out.down_dv = take(experts * inner * row);
            out.down_u = take(pairs * row);
        }
        if backward {
            if gate_up {
                out.gate_up_du = take(pairs * row);
            }
            if down {
                out.down_du = take(pairs * row);
            }
            out.d_weights = take(pairs * F32);
            out.d_logits = take(pairs * F32);
            if out.pre == At::None {
                out.pre = take(pairs * 2 * inner * BF16);
            }
            if down {
                out.inner = take(pairs * inner * BF16);
            }
            let part = |features: usize, rank: usize| {
                LowRank { experts, features, rank: rank.max(1) }.workspace(pairs)
            };
            if gate_up || down {
                let (of_gate_up, of_down) = (self.paths.gate_up, self.paths.down);
                let most = part(2 * inner, of_gate_up).max(part(hidden, of_gate_up));
                out.partial = take(most.max(part(hidden, of_down)).max(part(inner, of_down)));
            }
            // The gradient of the experts' input is written when that of their inner features was read.
            let both = take(pairs * hidden.max(inner) * BF16);
            (out.d_inner, out.d_expert_in) = (both, both);
            if self.in_order {
                out.in_order = take(pairs * hidden * BF16);
            }
        } else {
            out.inner = take(pairs * inner * BF16);
            out.expert_out = take(pairs * hidden * BF16);
            // What goes into the experts was read when something comes out.
            out.in_order = out.expert_out;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(kept: Kept, paths: Paths) -> Plan {
        let sizes = LayerSizes {
            hidden: 2880,
            query: 4096,
            key_value: 512,
            n_heads: 64,
            n_experts: 32,
            top_k: 4,
            inner: 2880,
        };
        Plan { sizes, tokens: 4096, paths, kept, in_order: true }
    }

    #[test]
    fn kept_memory_is_within_what_was_planned() {
        for kept in Kept::ALL {
            for paths in [Paths::default(), Paths { input: 32, output: 16, router: 8, gate_up: 8, down: 8 }] {
                let plan = plan(kept, paths);
                let bound = plan.sizes.kept_bound(kept, plan.tokens);
                for buffers in [plan.forward(), plan.backward()] {
                    assert!(buffers.kept_bytes <= bound, "{kept:?}: {} > {bound}", buffers.kept_bytes);
                    assert!(buffers.kept_bytes >= plan.sizes.kept_bytes(kept, plan.tokens));
                }
            }
        }
    }

    #[test]
    fn forward_and_backward_agree_on_what_is_kept() {
        for kept in Kept::ALL {
            let plan = plan(kept, Paths::default());
            let (forward, backward) = (plan.forward(), plan.backward());
            let places = |b: &Buffers| {
                [
                    b.middle, b.attended, b.lse, b.qkv, b.pre, b.experts, b.weights, b.pairs, b.places,
                    b.offsets,
                ]
            };
            for (forward, backward) in places(&forward).into_iter().zip(places(&backward)) {
                if matches!(forward, At::Kept(_)) || matches!(backward, At::Kept(_)) {
                    assert_eq!(forward, backward);
                }
            }
        }
    }

    #[test]
    fn scratch_of_the_20b_is_a_small_part_of_a_card() {
        let plan = Plan { tokens: 16384, ..plan(Kept::Input, Paths::default()) };
        let bytes = plan.forward().scratch_bytes.max(plan.backward().scratch_bytes);
        assert!(bytes < 2_200_000_000, "{bytes}");
        let without = Plan { in_order: false, ..plan }.backward().scratch_bytes;
        assert_eq!(plan.backward().scratch_bytes - without, 16384 * 4 * 2880 * 2);
    }
}
