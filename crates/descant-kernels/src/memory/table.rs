//! Every buffer of a layer, a row each: its bytes, the level from which it is kept, and the phases in which it holds
//! what its name says. Addresses, what is kept, scratch, and every plan of memory come from these rows.
//!
//! A pass has two halves in each direction. A buffer that is alive in both halves of a direction lies below; above,
//! the two halves use the same bytes one after the other.

use super::keep::Kept;
use super::low_rank::{Side, dense_factor, dense_rows, expert_factor, expert_rows, partial};
use super::sizes::Plan;
use crate::op::attention::one_pass;
use crate::op::experts::ExpertForm;
use crate::op::route::sort_bytes;
use crate::site::{DensePath, ExpertPath};

/// Bytes of cuBLASLt's workspace.
pub(crate) const WORKSPACE: usize = 32 << 20;

const BF16: usize = 2;
const F32: usize = 4;
const I32: usize = 4;
const E4M3: usize = 1;

/// Part of a pass. The backward's attention phase comes twice: what it needs of the forward is made before its
/// experts' phase, and its gradients behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    ForwardAttention,
    ForwardExperts,
    BackwardAttention,
    BackwardExperts,
}

impl Phase {
    pub(crate) const ALL: [Self; 4] =
        [Self::ForwardAttention, Self::ForwardExperts, Self::BackwardAttention, Self::BackwardExperts];
    /// The two halves of each direction.
    pub(crate) const DIRECTIONS: [[Self; 2]; 2] =
        [[Self::ForwardAttention, Self::ForwardExperts], [Self::BackwardAttention, Self::BackwardExperts]];
}

const EVERYWHERE: &[Phase] = &Phase::ALL;
const ATTENTION: &[Phase] = &[Phase::ForwardAttention, Phase::BackwardAttention];
const EXPERTS: &[Phase] = &[Phase::ForwardExperts, Phase::BackwardExperts];
const FORWARD_EXPERTS: &[Phase] = &[Phase::ForwardExperts];
const BACKWARD_ATTENTION: &[Phase] = &[Phase::BackwardAttention];
const BACKWARD_EXPERTS: &[Phase] = &[Phase::BackwardExperts];

/// A buffer's row.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// How many; 0 where a plan has no such buffer.
    pub(crate) bytes: fn(&Plan) -> usize,
    /// The level from which it is kept for the backward, and then alive in every phase.
    pub(crate) keep: Option<Kept>,
    /// Where it is alive when it is not kept.
    pub(crate) alive: &'static [Phase],
    /// A buffer whose last read comes before this one's first write, and whose bytes this one takes.
    pub(crate) within: Option<Buffer>,
}

const fn row(alive: &'static [Phase], bytes: fn(&Plan) -> usize) -> Row {
    Row { bytes, keep: None, alive, within: None }
}

impl Row {
    const fn kept(self, level: Kept) -> Self {
        Self { keep: Some(level), ..self }
    }

    const fn within(self, other: Buffer) -> Self {
        Self { within: Some(other), ..self }
    }

    /// Whether it is of a chunk of tokens, so that each chunk has one of its own where it is kept.
    pub(super) fn is_of_chunk(&self) -> bool {
        self.alive.iter().all(|phase| EXPERTS.contains(phase))
    }
}

macro_rules! buffers {
    ($($(#[$doc:meta])* $name:ident = $row:expr;)*) => {
        /// A buffer; names are those of the layer's formulas, `D` for a gradient.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Buffer { $($(#[$doc])* $name,)* }

        impl Buffer {
            /// In the order in which they are laid out.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// The row of this buffer.
            pub(crate) const fn row(self) -> Row {
                match self { $(Self::$name => $row,)* }
            }
        }
    };
}

buffers! {
    /// cuBLASLt's.
    Workspace = row(EVERYWHERE, |_| WORKSPACE);
    /// The residual stream behind attention.
    Middle = row(EVERYWHERE, |p| p.tokens * p.sizes.hidden * BF16).kept(Kept::Attention);
    /// Attention's result.
    Attended = row(EVERYWHERE, |p| p.tokens * p.sizes.query * BF16).kept(Kept::Attention);
    /// Logarithm of each softmax' denominator.
    Lse = row(EVERYWHERE, |p| p.tokens * p.sizes.n_heads * F32).kept(Kept::Attention);
    /// Queries, keys and values, rotated.
    Qkv = row(EVERYWHERE, |p| p.tokens * p.sizes.qkv() * BF16).kept(Kept::Projections);
    /// The input behind its norm, by the A of q, k and v.
    InputU = row(EVERYWHERE, |p| dense_rows(p, DensePath::Input)).kept(Kept::Projections);
    /// `Attended` by the A of the output.
    OutputU = row(EVERYWHERE, |p| dense_rows(p, DensePath::Output)).kept(Kept::Attention);
    /// Expert of each pair.
    Experts = row(EXPERTS, |p| p.pairs() * I32).kept(Kept::Experts);
    /// The router's weight of each pair.
    Weights = row(EXPERTS, |p| p.pairs() * F32).kept(Kept::Experts);
    /// Pair of each sorted place.
    Pairs = row(EXPERTS, |p| p.pairs() * I32).kept(Kept::Experts);
    /// Sorted place of each pair.
    Places = row(EXPERTS, |p| p.pairs() * I32).kept(Kept::Experts);
    /// First place of each expert.
    Offsets = row(EXPERTS, |p| (p.sizes.n_experts + 1) * I32).kept(Kept::Experts);
    /// The experts' first product, then its gradient.
    Pre = row(BACKWARD_EXPERTS, |p| p.pairs() * 2 * p.sizes.inner * BF16).kept(Kept::Experts);

    /// q k v pairs in the form that products read.
    InputA = row(EVERYWHERE, |p| dense_factor(p, DensePath::Input, Side::Inputs)).kept(Kept::Experts);
    InputB = row(EVERYWHERE, |p| dense_factor(p, DensePath::Input, Side::Outputs)).kept(Kept::Experts);
    /// The output's pair in that form.
    OutputA = row(EVERYWHERE, |p| dense_factor(p, DensePath::Output, Side::Inputs)).kept(Kept::Experts);
    OutputB = row(EVERYWHERE, |p| dense_factor(p, DensePath::Output, Side::Outputs)).kept(Kept::Experts);
    /// The router's weight with its pair.
    MergedRouter = row(EVERYWHERE, router_bytes).kept(Kept::Experts);

    /// The input behind its norm.
    Normed = row(ATTENTION, |p| p.tokens * p.sizes.hidden * BF16);
    FirstRms = row(ATTENTION, |p| p.tokens * F32);

    /// A packed matrix of attention, for the product that follows.
    Unpacked = row(ATTENTION, |p| if p.sizes.packed_attention { p.sizes.dense_numbers() * BF16 } else { 0 });

    /// `Middle` behind its norm.
    SecondNormed = row(EXPERTS, |p| p.chunk * p.sizes.hidden * BF16);
    SecondRms = row(EXPERTS, |p| p.chunk * F32).kept(Kept::Experts);
    /// The router's.
    Logits = row(EXPERTS, |p| p.chunk * p.sizes.n_experts * F32);
    /// Work memory of the sort by expert.
    Sort = row(EXPERTS, |p| sort_bytes(p.pairs(), p.sizes.n_experts));
    /// Packed factors of the first product's pair: s B, and A transposed.
    GateUpV = row(EXPERTS, |p| expert_factor(p, ExpertPath::GateUp, Side::Outputs));
    GateUpDv = row(EXPERTS, |p| expert_factor(p, ExpertPath::GateUp, Side::Inputs));
    /// Rows by A.
    GateUpU = row(EXPERTS, |p| expert_rows(p, ExpertPath::GateUp)).kept(Kept::Experts);
    /// The same of the second product's pair.
    DownV = row(EXPERTS, |p| expert_factor(p, ExpertPath::Down, Side::Outputs));
    DownDv = row(EXPERTS, |p| expert_factor(p, ExpertPath::Down, Side::Inputs));
    DownU = row(EXPERTS, |p| expert_rows(p, ExpertPath::Down));
    /// SwiGLU's result.
    Inner = row(FORWARD_EXPERTS, |p| p.pairs() * p.sizes.inner * BF16);
    /// The experts' second product.
    ExpertOut = row(FORWARD_EXPERTS, |p| p.pairs() * p.sizes.hidden * BF16);
    /// A row of the tokens' for each pair, in order: read before anything comes out of the experts.
    ForwardRows = row(FORWARD_EXPERTS, rows_in_order).within(Buffer::ExpertOut);
    /// SwiGLU's result in E4M3.
    InnerRows = row(FORWARD_EXPERTS, |p| in_e4m3(p, p.sizes.inner));
    /// Factors of rows in E4M3.
    RowFactors = row(EXPERTS, |p| if p.experts == ExpertForm::Fp8 { p.pairs() * F32 } else { 0 });

    GateUpDu = row(BACKWARD_EXPERTS, |p| expert_rows(p, ExpertPath::GateUp));
    DownDu = row(BACKWARD_EXPERTS, |p| expert_rows(p, ExpertPath::Down));
    DWeights = row(BACKWARD_EXPERTS, |p| p.pairs() * F32);
    DLogits = row(BACKWARD_EXPERTS, |p| p.pairs() * F32);
    /// The router's whole gradient.
    DRouter = row(BACKWARD_EXPERTS, router_bytes);
    /// SwiGLU's result again, which the second product's pair reads.
    InnerAgain = row(BACKWARD_EXPERTS, |p| {
        if p.paths.down > 0 { p.pairs() * p.sizes.inner * BF16 } else { 0 }
    });
    /// Parts of the pairs' gradients.
    Partial = row(BACKWARD_EXPERTS, partial);
    DInner = row(BACKWARD_EXPERTS, |p| p.pairs() * p.sizes.hidden.max(p.sizes.inner) * BF16);
    DExpertIn = row(BACKWARD_EXPERTS, |p| p.pairs() * p.sizes.hidden * BF16).within(Buffer::DInner);
    /// As `ForwardRows`; in E4M3 also the rows of `Pre`'s gradient.
    BackwardRows = row(BACKWARD_EXPERTS, |p| rows_in_order(p).max(in_e4m3(p, 2 * p.sizes.inner)));

    DAttended = row(BACKWARD_ATTENTION, |p| p.tokens * p.sizes.query * BF16);
    DQkv = row(BACKWARD_ATTENTION, |p| p.tokens * p.sizes.qkv() * BF16);
    /// Each query's product of attention's result and its gradient.
    Delta = row(BACKWARD_ATTENTION, |p| p.tokens * p.sizes.n_heads * F32);
    /// Sums of the queries' gradients, where attention's backward is one pass; then what follows it.
    QuerySums = row(BACKWARD_ATTENTION, |p| query_sums(p).max(p.tokens * p.sizes.hidden * BF16));
    DNormed = row(BACKWARD_ATTENTION, |p| p.tokens * p.sizes.hidden * BF16).within(Buffer::QuerySums);
    DInputU = row(BACKWARD_ATTENTION, |p| dense_rows(p, DensePath::Input));
    DOutputU = row(BACKWARD_ATTENTION, |p| dense_rows(p, DensePath::Output));
}

/// Buffers of a dense path.
#[cfg(feature = "cuda")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct DenseBuffers {
    /// The rows that it reads.
    pub(crate) x: Buffer,
    /// A, and s B transposed, packed.
    pub(crate) a: Buffer,
    pub(crate) b: Buffer,
    /// `x` by A.
    pub(crate) u: Buffer,
    /// Gradient rows by s B.
    pub(crate) du: Buffer,
    /// The gradient of what its products give; none where that is the residual stream's.
    pub(crate) d_out: Option<Buffer>,
}

/// Buffers of an expert path.
#[cfg(feature = "cuda")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpertBuffers {
    /// s B, packed.
    pub(crate) v: Buffer,
    /// A, packed and transposed.
    pub(crate) dv: Buffer,
    /// Rows by A.
    pub(crate) u: Buffer,
    /// Gradient rows by s B.
    pub(crate) du: Buffer,
}

#[cfg(feature = "cuda")]
impl DenseBuffers {
    pub(crate) fn of(path: DensePath) -> Self {
        use Buffer::{
            Attended, DInputU, DOutputU, DQkv, InputA, InputB, InputU, Normed, OutputA, OutputB, OutputU,
        };
        match path {
            DensePath::Input => {
                Self { x: Normed, a: InputA, b: InputB, u: InputU, du: DInputU, d_out: Some(DQkv) }
            }
            DensePath::Output => {
                Self { x: Attended, a: OutputA, b: OutputB, u: OutputU, du: DOutputU, d_out: None }
            }
        }
    }
}

#[cfg(feature = "cuda")]
impl ExpertBuffers {
    pub(crate) fn of(path: ExpertPath) -> Self {
        use Buffer::{DownDu, DownDv, DownU, DownV, GateUpDu, GateUpDv, GateUpU, GateUpV};
        match path {
            ExpertPath::GateUp => Self { v: GateUpV, dv: GateUpDv, u: GateUpU, du: GateUpDu },
            ExpertPath::Down => Self { v: DownV, dv: DownDv, u: DownU, du: DownDu },
        }
    }
}

fn router_bytes(p: &Plan) -> usize {
    if p.paths.router > 0 { p.sizes.n_experts * p.sizes.hidden * F32 } else { 0 }
}

fn query_sums(p: &Plan) -> usize {
    let head_dim = p.sizes.query / p.sizes.n_heads;
    let key_heads = p.sizes.key_value / head_dim;
    one_pass::scratch_bytes(p.tokens, p.sizes.n_heads / key_heads, key_heads, head_dim)
}

/// Rows of the pairs of so many numbers.
fn in_e4m3(p: &Plan, width: usize) -> usize {
    if p.experts == ExpertForm::Fp8 { p.pairs() * width * E4M3 } else { 0 }
}

fn rows_in_order(p: &Plan) -> usize {
    if p.in_order { p.pairs() * p.sizes.hidden * BF16 } else { 0 }
}
