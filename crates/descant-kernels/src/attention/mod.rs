//! Causal attention of gpt-oss: grouped query heads, a learned sink a head, full or sliding window, many sequences
//! at once, no padding, and no matrix of all queries by all keys.
//!
//! The softmax runs over a query's scores and its head's sink; the sink takes probability and gives no value. The
//! forward keeps the logarithm of each softmax denominator, from which the backward rebuilds the probabilities.
//! Sources: Dao 2023, "FlashAttention-2" (backward from the log-sum-exp); `eager_attention_forward` of
//! transformers' gpt-oss for the sink.

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod reference;
mod segments;
#[cfg(feature = "cuda")]
pub(crate) mod table;
#[cfg(any(feature = "cuda", test))]
pub(crate) mod tiles;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

pub use segments::{Segment, Segments};

/// What does not depend on the tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    /// Keys a query sees, its own included; `None` for all earlier ones.
    pub window: Option<usize>,
    /// Factor on the scores, 1 / sqrt(dim) in gpt-oss.
    pub scale: f32,
}

/// Attends from `q` to `k` and `v` within each segment.
///
/// # Shapes
/// - `q` and the result `[query rows, heads, dim]`
/// - `k`, `v` `[key rows, kv heads, dim]`; `kv heads` divides `heads`, and query head `h` reads
///   `h / (heads / kv heads)`
/// - `sinks` `[heads]`, frozen
///
/// # Panics
/// If a segment reaches outside the rows, or the segments do not cover the query rows in order.
pub fn attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    sinks: &Tensor<1>,
    spec: AttentionSpec,
    segments: &Segments,
) -> Tensor<3> {
    segments.check(q.dims()[0], k.dims()[0]);
    if crate::device::has_form(&q.device(), q.dtype()) && has_kernel(&q, &k) {
        let sinks = sinks.clone().into_dispatch();
        let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
        return Tensor::from_dispatch(Dispatch::attention(q, k, v, sinks, spec, segments.clone()));
    }
    reference::attention(q, k, v, sinks, spec, segments)
}

/// Whether the device's own form is written for these sizes; the CPU's takes all.
fn has_kernel(q: &Tensor<3>, k: &Tensor<3>) -> bool {
    #[cfg(feature = "cuda")]
    if crate::is_cuda(&q.device()) {
        let ([_, heads, dim], [_, n_kv, _]) = (q.dims(), k.dims());
        return cuda::has_kernel(dim, heads / n_kv);
    }
    let _ = (q, k);
    true
}

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
