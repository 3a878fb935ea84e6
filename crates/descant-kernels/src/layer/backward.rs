//! A layer's backward as launches: what was not kept is made again, then gradients go from the output to the input
//! and to the pairs.

use super::experts::{ExpertProduct, ExpertRows};
use super::forward::Activation;
use super::frame::{Frame, Product};
use super::lora;
use super::operands::{Factors, Gradients};
use crate::cuda::{MatmulSpec, Result};
use crate::memory::keep::Kept;
use crate::memory::table::{Buffer, ExpertBuffers, Phase};
use crate::op::attention::cuda_backward as attention;
use crate::op::experts::cuda::Output;
use crate::op::experts::fp8_rows::RowFactors;
use crate::op::norm::cuda as norm;
use crate::op::route::cuda as route;
use crate::op::swiglu::cuda as swiglu;
use crate::site::{DensePath, ExpertPath, SiteKind};

impl Frame<'_> {
    /// Takes the gradient of the output to that of the input, and writes the gradients of A and B of each site that
    /// has a pair.
    pub(super) fn backward(&self, to: &Gradients<u64>) -> Result<()> {
        let (x, dx) = (self.operands.x, self.operands.out);
        let attention = self.during(Phase::BackwardAttention);
        if self.plan.kept < Kept::Experts {
            attention.pack()?;
        }
        if self.plan.kept < Kept::Projections {
            attention.attention_input(x)?;
        }
        if self.plan.kept < Kept::Attention {
            attention.attend(x)?;
        }
        self.chunks(Phase::BackwardExperts).try_for_each(|experts| {
            experts.experts_again()?;
            experts.down_backward(to)?;
            experts.gate_up_backward(to)?;
            experts.route_backward(to, dx)
        })?;
        attention.output_backward(dx)?;
        attention.input_backward(to, x, dx)
    }

    /// What the experts' backward reads of their forward, as far as it was not kept.
    fn experts_again(&self) -> Result<()> {
        if self.plan.kept < Kept::Experts {
            self.choose_experts()?;
            // The backward of SwiGLU makes the activation again, where anybody asks.
            return self.gate_up(Some(self.at(Buffer::Pre)?), Activation::Left, Buffer::BackwardRows);
        }
        // Gradients of pairs alone read the rows; the norm's backward has its kept factors.
        if [SiteKind::GateUp, SiteKind::Router].into_iter().any(|kind| self.pair(kind).is_some()) {
            let middle = self.part_of(self.at(Buffer::Middle)?);
            let norm = self.operands.frozen.post_norm;
            self.normed(middle, norm, Buffer::SecondNormed, Buffer::SecondRms)?;
        }
        self.pack_expert_pair(ExpertPath::GateUp)
    }

    /// From the gradient of the layer's output to that of SwiGLU's input, which replaces it.
    fn down_backward(&self, to: &Gradients<u64>) -> Result<()> {
        let (s, buffers, grad) =
            (&self.plan.sizes, ExpertBuffers::of(ExpertPath::Down), self.part_of(to.grad));
        let d_out = self.gathered(grad, s.hidden)?;
        let pair = self.pair(SiteKind::Down);
        self.pack_expert_pair(ExpertPath::Down)?;
        let mut low_rank = None;
        if let Some(pair) = &pair {
            self.expert_u(pair, &d_out, buffers.v, s.hidden, buffers.du)?;
            low_rank = Some((self.at(buffers.du)?, self.at(buffers.dv)?));
        }
        let d_inner = self.at(Buffer::DInner)?;
        let result = Output { low_rank, out: Some(d_inner), ..Output::default() };
        let product = ExpertProduct::Backward(ExpertPath::Down);
        self.expert_product(product, ExpertRows::Tokens(grad), Buffer::BackwardRows, &result, None)?;
        let inner = if pair.is_some() { self.at(Buffer::InnerAgain)? } else { 0 };
        let pre = self.at(Buffer::Pre)?;
        let in_fp8 = self.swiglu_codes()?;
        let [codes, factors] = in_fp8.unwrap_or_default();
        // In bf16 only for whom reads it.
        let is_read = in_fp8.is_none() || self.pair(SiteKind::GateUp).is_some();
        let at = swiglu::Backward {
            pre,
            dh: d_inner,
            dpre: if is_read { pre } else { 0 },
            codes,
            factors,
            h_out: inner,
            pairs: self.at(Buffer::Pairs)?,
            weights: self.at(Buffer::Weights)?,
            d_weights: self.at(Buffer::DWeights)?,
        };
        // Two numbers of the input and one of the gradient; two of the result in either form.
        let numbers = 6 + if is_read { 4 } else { 0 } + if in_fp8.is_some() { 2 } else { 0 };
        let bytes = (self.n_pairs() * s.inner * numbers) as f64;
        self.run.stage("swiglu, back", 0.0, bytes, || {
            swiglu::backward(self.run, &at, [self.n_pairs(), s.inner], self.spec.limit)
        })?;
        let (Some(pair), Some(to)) = (&pair, to.pairs[SiteKind::Down]) else { return Ok(()) };
        let inner = self.sorted(inner, s.inner)?;
        self.expert_u(pair, &inner, buffers.dv, s.inner, buffers.u)?;
        let (pairs, weights) = (self.at(Buffer::Pairs)?, self.at(Buffer::Weights)?);
        let sides = [self.at(buffers.u)?, self.at(buffers.du)?];
        lora::weigh_rows(self.run, sides, pairs, weights, [self.n_pairs(), pair.rank])?;
        self.expert_gradients(pair, to, [(&d_out, s.hidden, buffers.u), (&inner, s.inner, buffers.du)])
    }

    /// From the gradient of SwiGLU's input to that of each pair's expert input.
    fn gate_up_backward(&self, to: &Gradients<u64>) -> Result<()> {
        let (s, buffers) = (&self.plan.sizes, ExpertBuffers::of(ExpertPath::GateUp));
        let pre = self.at(Buffer::Pre)?;
        let d_pre = self.sorted(pre, 2 * s.inner)?;
        let pair = self.pair(SiteKind::GateUp);
        let mut low_rank = None;
        if let Some(pair) = &pair {
            self.expert_u(pair, &d_pre, buffers.v, 2 * s.inner, buffers.du)?;
            low_rank = Some((self.at(buffers.du)?, self.at(buffers.dv)?));
        }
        let result = Output { low_rank, out: Some(self.at(Buffer::DExpertIn)?), ..Output::default() };
        let product = ExpertProduct::Backward(ExpertPath::GateUp);
        let rows = match self.swiglu_codes()? {
            Some([_, factors]) => ExpertRows::Written(RowFactors::Each(factors)),
            None => ExpertRows::Pairs(pre),
        };
        self.expert_product(product, rows, Buffer::BackwardRows, &result, None)?;
        let (Some(pair), Some(to)) = (&pair, to.pairs[SiteKind::GateUp]) else { return Ok(()) };
        let x = self.gathered(self.at(Buffer::SecondNormed)?, s.hidden)?;
        self.expert_gradients(pair, to, [(&d_pre, 2 * s.inner, buffers.u), (&x, s.hidden, buffers.du)])
    }

    /// From the gradient of each pair's expert input and of the router's weights to that of `middle`, which
    /// replaces the gradient of the output in `dx`.
    fn route_backward(&self, to: &Gradients<u64>, dx: u64) -> Result<()> {
        let (s, t) = (&self.plan.sizes, self.tokens());
        let at = route::CombineBackward {
            d_rows: self.at(Buffer::DExpertIn)?,
            places: self.at(Buffer::Places)?,
            experts: self.at(Buffer::Experts)?,
            weights: self.at(Buffer::Weights)?,
            d_weights: self.at(Buffer::DWeights)?,
            router: self.router_weight()?,
            bias: self.operands.frozen.down_bias,
            middle: self.part_of(self.at(Buffer::Middle)?),
            inverse_rms: self.at(Buffer::SecondRms)?,
            norm: self.operands.frozen.post_norm,
            grad: self.part_of(to.grad),
            out: self.part_of(dx),
            d_logits: self.at(Buffer::DLogits)?,
        };
        let bytes = 2.0 * (t * s.hidden) as f64 * (s.top_k + 3) as f64;
        self.run.stage("combine, back", 0.0, bytes, || {
            route::combine_backward(self.run, &at, [t, s.hidden, s.top_k])
        })?;
        let (Some(pair), Some(Factors { a, b })) = (self.pair(SiteKind::Router), to.pairs[SiteKind::Router])
        else {
            return Ok(());
        };
        let (whole, normed) = (self.at(Buffer::DRouter)?, self.at(Buffer::SecondNormed)?);
        self.run.stage("router gradients", 0.0, 2.0 * (t * s.hidden) as f64, || {
            let sizes = [t, s.hidden, s.n_experts, s.top_k];
            let of = lora::RouterGradient { d_logits: at.d_logits, experts: at.experts, x: normed };
            lora::router_gradient(self.run, of, whole, !self.is_first_chunk(), sizes)?;
            if !self.is_last_chunk() {
                return Ok(());
            }
            lora::router_pair_gradient(self.run, whole, pair, a, b, s.n_experts, s.hidden)
        })
    }

    /// From the gradient of `middle` in `dx` to that of attention's result.
    fn output_backward(&self, dx: u64) -> Result<()> {
        let s = &self.plan.sizes;
        let d_attended = self.at(Buffer::DAttended)?;
        let mut product = MatmulSpec::backward(self.tokens(), s.query, s.hidden);
        let mut of = Product::new(dx, 0, d_attended);
        if self.dense_path_backward(DensePath::Output, dx, d_attended)? {
            product.beta = 1.0;
            of.c = Some(d_attended);
        }
        of.b = self.dense(&self.operands.frozen.output)?;
        self.matmul("output, back", &product, of)
    }

    /// From the gradient of attention's result, and that of `middle` in `dx`, to that of the layer's input, in the
    /// same place.
    fn input_backward(&self, to: &Gradients<u64>, x: u64, dx: u64) -> Result<()> {
        let (s, t) = (&self.plan.sizes, self.tokens());
        let (qkv, d_qkv) = (self.at(Buffer::Qkv)?, self.at(Buffer::DQkv)?);
        let at = attention::Backward {
            out: self.at(Buffer::Attended)?,
            d_out: self.at(Buffer::DAttended)?,
            stride: s.query,
            lse: self.at(Buffer::Lse)?,
            delta: self.at(Buffer::Delta)?,
            sums: self.at(Buffer::QuerySums)?,
        };
        let frozen = &self.operands.frozen;
        let name = self.attention_name("attention, full, back", "attention, window, back");
        let bytes = 2.0 * (t * (2 * s.qkv() + 2 * s.query)) as f64;
        self.run.stage(name, 2.5 * self.attention_flops(), bytes, || {
            attention::backward(
                self.run,
                &self.attention_shape(),
                self.sequences,
                self.qkv_parts(qkv),
                at,
                self.qkv_parts(d_qkv),
            )
        })?;
        self.turn(d_qkv, -1.0)?;
        let d_normed = self.at(Buffer::DNormed)?;
        self.normed(x, frozen.input_norm, Buffer::Normed, Buffer::FirstRms)?;
        let mut product = MatmulSpec::backward(t, s.hidden, s.qkv());
        let mut of = Product::new(d_qkv, 0, d_normed);
        if self.dense_path_backward(DensePath::Input, d_qkv, d_normed)? {
            product.beta = 1.0;
            of.c = Some(d_normed);
        }
        of.b = self.dense(&frozen.qkv)?;
        self.matmul("q k v, back", &product, of)?;
        self.dense_gradients(to, dx)?;
        let rms = Some(self.at(Buffer::FirstRms)?);
        self.run.stage("norm, back", 0.0, 8.0 * (t * s.hidden) as f64, || {
            norm::backward(self.run, x, frozen.input_norm, rms, d_normed, Some(dx), dx, self.norm_rows())
        })
    }
}
