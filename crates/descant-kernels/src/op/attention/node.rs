//! Attention in burn's graph: what a backend's form is, and the node made of it.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use super::segments::Segments;
use super::spec::AttentionSpec;
use crate::op::graph::operator;

/// What the backward needs again.
#[derive(Debug, Clone)]
pub(crate) struct Saved<B: Backend> {
    pub(crate) q: FloatTensor<B>,
    pub(crate) k: FloatTensor<B>,
    pub(crate) v: FloatTensor<B>,
    pub(crate) out: FloatTensor<B>,
    /// Logarithm of the softmax denominator, in the backend's own order and base.
    pub(crate) lse: FloatTensor<B>,
    pub(crate) spec: AttentionSpec,
    pub(crate) segments: Segments,
}

/// Forward and backward of a backend.
pub(crate) trait AttentionKernel: Backend {
    /// The result, and what the backward needs.
    fn attention_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        spec: AttentionSpec,
        segments: Segments,
    ) -> Saved<Self>;

    /// Gradients of q, k and v.
    fn attention_backward(saved: Saved<Self>, grad: FloatTensor<Self>) -> [FloatTensor<Self>; 3];
}

operator! {
    (Cube: cfg(feature = "cuda"), Flex, Autodiff) pub(crate) trait AttentionOp of AttentionKernel;
    fn attention(
        q: FloatTensor, k: FloatTensor, v: FloatTensor, sinks: FloatTensor; spec: AttentionSpec, segments: Segments
    );
    B::attention_forward(q, k, v, sinks, spec, segments).out;
    [q, k, v] => B::attention_backward, |_| {
        let [q, k, v] = [&q, &k, &v].map(|tensor| tensor.primitive().clone());
        let saved = B::attention_forward(q, k, v, sinks.into_primitive(), spec, segments);
        (saved.out.clone(), saved)
    }
}
