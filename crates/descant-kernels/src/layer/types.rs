//! What a layer is made of, as its callers say it.

use burn::tensor::Tensor;

use crate::op::attention::Segments;
use crate::op::linear::FrozenWeight;
use crate::site::PerSite;

/// The low-rank pair at a site: adds `scaling · (x A^T) B^T` to the product there.
#[derive(Debug, Clone)]
pub struct LowRankPair {
    /// `[matrices, rank, in]`
    pub a: Tensor<3>,
    /// `[matrices, out, rank]`
    pub b: Tensor<3>,
    /// Factor on the product.
    pub scaling: f32,
}

/// The gradients of a pair's factors.
#[derive(Debug, Clone)]
pub struct PairGradients {
    /// `[matrices, rank, in]`
    pub a: Tensor<3>,
    /// `[matrices, out, rank]`
    pub b: Tensor<3>,
}

/// The pairs of a layer.
pub type LayerPairs = PerSite<Option<LowRankPair>>;

/// A dense matrix, `[out, in]`.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "two a layer, and a box would only hide handles")]
pub enum DenseWeight {
    /// As products read it.
    Plain(Tensor<2>),
    /// [`FrozenWeight::Nf4`]s of one matrix each, below each other: unpacked before each product.
    Packed(Vec<FrozenWeight>),
}

impl From<Tensor<2>> for DenseWeight {
    fn from(weight: Tensor<2>) -> Self {
        Self::Plain(weight)
    }
}

/// The frozen tensors of a layer.
#[derive(Debug, Clone)]
pub struct LayerTensors {
    /// `[hidden]`, f32
    pub input_norm: Tensor<1>,
    /// Query, key and value below each other: `[query + 2 · key value, hidden]`
    pub attention_input: DenseWeight,
    /// `[query + 2 · key value]`
    pub attention_input_bias: Tensor<1>,
    /// `[heads]`, f32
    pub sinks: Tensor<1>,
    /// `[hidden, query]`
    pub output: DenseWeight,
    /// `[hidden]`
    pub output_bias: Tensor<1>,
    /// `[hidden]`, f32
    pub post_norm: Tensor<1>,
    /// `[experts, hidden]`
    pub router: Tensor<2>,
    /// `[experts]`, f32
    pub router_bias: Tensor<1>,
    /// `[experts, 2 · inner, hidden]`
    pub gate_up: FrozenWeight,
    /// `[experts, 2 · inner]`, f32
    pub gate_up_bias: Tensor<2>,
    /// `[experts, hidden, inner]`
    pub down: FrozenWeight,
    /// `[experts, hidden]`, f32
    pub down_bias: Tensor<2>,
}

/// What does not depend on weights or tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerSpec {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Experts a token goes to.
    pub top_k: usize,
    /// Keys a query sees, its own included; `None` for all earlier ones.
    pub window: Option<usize>,
    /// Added to the mean square.
    pub epsilon: f64,
    /// Clamp of SwiGLU.
    pub limit: f32,
}

/// The place of a layer among all of them. Decides which kept memory is its own, and how much that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPlace {
    /// From 0.
    pub index: usize,
    /// How many keys a query sees at most, of each layer; `None` for all earlier ones.
    pub windows: std::sync::Arc<[Option<usize>]>,
}

/// A batch of a step whose streams lie in [places](super::StepPlaces).
#[derive(Debug, Clone, Copy)]
pub struct PlacedBatch<'a> {
    /// Which of the step's.
    pub batch: usize,
    /// Angles of its tokens.
    pub angles: &'a Angles,
    /// Its sequences.
    pub segments: &'a Segments,
    /// Whether another batch goes through the same layer next.
    pub again: bool,
    /// Whether it multiplies with experts in bf16 where memory is laid out for other numbers.
    pub in_bf16: bool,
}

/// Rotary angles of each token: cosines and sines, `[tokens, head_dim / 2]`, f32.
#[derive(Debug, Clone)]
pub struct Angles {
    /// Cosines.
    pub cos: Tensor<2>,
    /// Sines.
    pub sin: Tensor<2>,
}
