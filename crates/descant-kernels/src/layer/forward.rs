//! A layer's forward as launches, and the parts of it that the backward runs again.
//!
//! ```text
//! x ─ norm ─ q k v ─ rotary ─ attention ─ output ─(+ x)─ middle ─ norm ─ router ─ choose, sort
//!                                                           │              │
//!                                                           └──(+)── combine ◀─ down ◀─ SwiGLU ◀─ gate_up
//! ```

use super::experts::{ExpertProduct, ExpertRows};
use super::frame::{Frame, Product};
use crate::cuda::{Element, MatmulSpec, Result};
use crate::memory::table::{Buffer, ExpertBuffers, Phase};
use crate::op::attention::cuda as attention;
use crate::op::experts::cuda::Output;
use crate::op::experts::fp8_rows::RowFactors;
use crate::op::route::cuda as route;
use crate::site::{DensePath, ExpertPath, SiteKind};

/// What becomes of SwiGLU's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    /// It is stored for the second product.
    Stored,
    /// Nobody wants it.
    Left,
}

impl Frame<'_> {
    /// The whole layer, from its input to its output.
    pub(super) fn forward(&self) -> Result<()> {
        let (x, out) = (self.operands.x, self.operands.out);
        let attention = self.during(Phase::ForwardAttention);
        attention.pack()?;
        attention.attention_input(x)?;
        attention.attend(x)?;
        self.chunks(Phase::ForwardExperts).try_for_each(|experts| {
            experts.choose_experts()?;
            experts.note_experts()?;
            // Stored where it is kept; the activation is what the second product reads.
            let pre = experts.at(Buffer::Pre).ok();
            experts.gate_up(pre, Activation::Stored, Buffer::ForwardRows)?;
            experts.down()?;
            experts.combine(out)
        })
    }

    /// From the layer's input to rotated queries and keys, and values.
    pub(super) fn attention_input(&self, x: u64) -> Result<()> {
        let (s, t) = (&self.plan.sizes, self.tokens());
        self.normed(x, self.operands.frozen.input_norm, Buffer::Normed, Buffer::FirstRms)?;
        let (normed, qkv) = (self.at(Buffer::Normed)?, self.at(Buffer::Qkv)?);
        let frozen = &self.operands.frozen;
        let mut product = MatmulSpec::forward(t, s.qkv(), s.hidden);
        product.bias = Some(Element::Bf16);
        let mut of = Product { bias: Some(frozen.qkv_bias), ..Product::new(normed, 0, qkv) };
        // The low-rank part first: the large product reads it beside its work, where a second pass over its result
        // would take time of its own.
        if self.dense_path(DensePath::Input, qkv, None)? {
            product.beta = 1.0;
            of.c = Some(qkv);
        }
        of.b = self.dense(&frozen.qkv)?;
        self.matmul("q k v", &product, of)?;
        self.turn(qkv, 1.0)
    }

    /// Attention and its output product, added to the residual stream.
    pub(super) fn attend(&self, x: u64) -> Result<()> {
        let (s, t) = (&self.plan.sizes, self.tokens());
        let name = self.attention_name("attention, full", "attention, window");
        let (flops, bytes) = (self.attention_flops(), 2.0 * (t * (s.qkv() + s.query)) as f64);
        let (qkv, attended) = (self.at(Buffer::Qkv)?, self.at(Buffer::Attended)?);
        let (lse, middle) = (self.at(Buffer::Lse)?, self.at(Buffer::Middle)?);
        let frozen = &self.operands.frozen;
        self.run.stage(name, flops, bytes, || {
            attention::forward(
                self.run,
                &self.attention_shape(),
                self.sequences,
                self.qkv_parts(qkv),
                frozen.sinks,
                attended,
                s.query,
                lse,
            )
        })?;
        let mut product = MatmulSpec::forward(t, s.hidden, s.query);
        product.bias = Some(Element::Bf16);
        product.beta = 1.0;
        let mut residual = x;
        if self.dense_path(DensePath::Output, middle, Some(x))? {
            residual = middle;
        }
        let (bias, weight) = (Some(frozen.output_bias), self.dense(&frozen.output)?);
        let of = Product { c: Some(residual), bias, ..Product::new(attended, weight, middle) };
        self.matmul("output", &product, of)
    }

    /// Which experts, with which weights, in which order.
    pub(super) fn choose_experts(&self) -> Result<()> {
        let (s, t) = (&self.plan.sizes, self.tokens());
        let frozen = &self.operands.frozen;
        let middle = self.part_of(self.at(Buffer::Middle)?);
        self.normed(middle, frozen.post_norm, Buffer::SecondNormed, Buffer::SecondRms)?;
        let flops = 2.0 * (t * s.hidden * s.n_experts) as f64;
        let (normed, logits) = (self.at(Buffer::SecondNormed)?, self.at(Buffer::Logits)?);
        let (experts, weights) = (self.at(Buffer::Experts)?, self.at(Buffer::Weights)?);
        let (pairs, places) = (self.at(Buffer::Pairs)?, self.at(Buffer::Places)?);
        let (offsets, scratch, router) =
            (self.at(Buffer::Offsets)?, self.at(Buffer::Sort)?, self.router_weight()?);
        self.run.stage("router", flops, 2.0 * (t * s.hidden) as f64, || {
            let (to, sizes) = ([logits, experts, weights], [t, s.hidden, s.n_experts, s.top_k]);
            route::router_choice(self.run, normed, router, frozen.router_bias, to, sizes)?;
            let sizes = [self.n_pairs(), s.n_experts];
            route::sort(self.run, experts, pairs, places, offsets, scratch, sizes)
        })
    }

    /// Copies the choice of experts to where somebody wants to read it.
    fn note_experts(&self) -> Result<()> {
        let Some(chosen) = self.operands.chosen else { return Ok(()) };
        let bytes = |tokens: usize| tokens * self.plan.sizes.top_k * size_of::<i32>();
        let to = chosen + bytes(self.chunk.first) as u64;
        self.run.copy(to, self.at(Buffer::Experts)?, bytes(self.tokens()))
    }

    /// The experts' first product, stored where it has a place, and its activation. `rows` is where tokens' rows are put in
    /// order.
    pub(super) fn gate_up(&self, pre: Option<u64>, activation: Activation, rows: Buffer) -> Result<()> {
        let (s, buffers) = (&self.plan.sizes, ExpertBuffers::of(ExpertPath::GateUp));
        let (frozen, normed) = (&self.operands.frozen, self.at(Buffer::SecondNormed)?);
        self.pack_expert_pair(ExpertPath::GateUp)?;
        let mut low_rank = None;
        if let Some(pair) = &self.pair(SiteKind::GateUp) {
            let x = self.gathered(normed, s.hidden)?;
            self.expert_u(pair, &x, buffers.dv, s.hidden, buffers.u)?;
            low_rank = Some((self.at(buffers.u)?, self.at(buffers.v)?));
        }
        let codes = match activation {
            Activation::Stored => self.activation_codes()?,
            Activation::Left => None,
        };
        // In bf16 for whom reads it so.
        let is_read =
            activation == Activation::Stored && (codes.is_none() || self.pair(SiteKind::Down).is_some());
        let inner = is_read.then(|| self.at(Buffer::Inner)).transpose()?;
        let to = Output {
            bias: Some(frozen.gate_up_bias),
            low_rank,
            out: pre,
            swiglu: inner.map(|inner| (inner, self.spec.limit)),
        };
        let product = ExpertProduct::Forward(ExpertPath::GateUp);
        self.expert_product(product, ExpertRows::Tokens(normed), rows, &to, codes)
    }

    /// The experts' second product.
    fn down(&self) -> Result<()> {
        let (s, buffers) = (&self.plan.sizes, ExpertBuffers::of(ExpertPath::Down));
        let inner = self.at(Buffer::Inner)?;
        let x = self.sorted(inner, s.inner)?;
        self.pack_expert_pair(ExpertPath::Down)?;
        let mut low_rank = None;
        if let Some(pair) = &self.pair(SiteKind::Down) {
            self.expert_u(pair, &x, buffers.dv, s.inner, buffers.u)?;
            low_rank = Some((self.at(buffers.u)?, self.at(buffers.v)?));
        }
        let bias = Some(self.operands.frozen.down_bias);
        let to = Output { bias, low_rank, out: Some(self.at(Buffer::ExpertOut)?), swiglu: None };
        let product = ExpertProduct::Forward(ExpertPath::Down);
        let rows = match self.activation_codes()? {
            Some(codes) => ExpertRows::Written(RowFactors::Fixed(codes.factor)),
            None => ExpertRows::Pairs(inner),
        };
        self.expert_product(product, rows, Buffer::InnerRows, &to, None)
    }

    /// What the experts say of each token, added to the residual stream.
    fn combine(&self, out: u64) -> Result<()> {
        let (t, s) = (self.tokens(), &self.plan.sizes);
        let bytes = 2.0 * (t * s.hidden) as f64 * (s.top_k + 2) as f64;
        let (expert_out, weights) = (self.at(Buffer::ExpertOut)?, self.at(Buffer::Weights)?);
        let (places, middle) = (self.at(Buffer::Places)?, self.part_of(self.at(Buffer::Middle)?));
        let out = self.part_of(out);
        self.run.stage("combine", 0.0, bytes, || {
            route::combine(self.run, expert_out, weights, places, middle, out, [t, s.hidden, s.top_k])
        })
    }
}
