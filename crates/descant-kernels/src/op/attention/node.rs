//! Attention in burn's graph: what a backend's form is, and the node made of it.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};

use super::segments::Segments;
use super::spec::AttentionSpec;

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

#[backend_extension(Cube: cfg(feature = "cuda"), Flex, Autodiff)]
pub(crate) trait AttentionOp: Backend {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        spec: AttentionSpec,
        segments: Segments,
    ) -> FloatTensor<Self>;
}

impl AttentionOp for Flex {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        spec: AttentionSpec,
        segments: Segments,
    ) -> FloatTensor<Self> {
        Self::attention_forward(q, k, v, sinks, spec, segments).out
    }
}

#[derive(Debug)]
struct AttentionBackward;

impl<B: AttentionKernel> Backward<B, 3> for AttentionBackward {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let gradients = B::attention_backward(ops.state, grad);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: AttentionKernel, C: CheckpointStrategy> AttentionOp for Autodiff<B, C> {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        spec: AttentionSpec,
        segments: Segments,
    ) -> FloatTensor<Self> {
        let prep = AttentionBackward.prepare::<C>([q.node(), k.node(), v.node()]).compute_bound();
        let (q, k, v) = (q.into_primitive(), k.into_primitive(), v.into_primitive());
        let saved = B::attention_forward(q, k, v, sinks.into_primitive(), spec, segments);
        let out = saved.out.clone();
        match prep.stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }
}
