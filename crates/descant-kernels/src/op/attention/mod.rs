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
#[cfg(feature = "cuda")]
pub(crate) mod cuda_backward;
#[cfg(feature = "cuda")]
mod cuda_ops;
mod node;
pub(crate) mod one_pass;
pub(crate) mod reference;
mod segments;
mod spec;
#[cfg(any(feature = "cuda", all(feature = "nvrtc", test)))]
mod strips;
#[cfg(feature = "cuda")]
pub(crate) mod table;
#[cfg(any(feature = "cuda", test))]
pub(crate) mod tiles;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use node::AttentionOp;
pub use segments::{Segment, Segments};
pub use spec::AttentionSpec;

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
