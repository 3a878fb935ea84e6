//! Mixture-of-experts routing: which experts a token goes to, the order in which experts work, and the way back.
//!
//! The router's `k` largest logits choose the experts; softmax over these alone gives their weights. A (token,
//! slot) pair is numbered `token * k + slot`; experts work on pairs sorted by expert, and by number within an
//! expert, so that every sum has one order. Everything stays on the device.

mod autodiff;
mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(feature = "cuda")]
mod cuda_ops;
pub(crate) mod reference;
mod routing;
mod sizes;

use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Tensor};

use crate::device::has_form_if;
use autodiff::{CombineOp, RouteOp, TakeOp, WeightsOp};
pub use routing::Routing;
#[cfg(feature = "nvrtc")]
pub(crate) use sizes::CHUNK;
pub(crate) use sizes::sort_bytes;

/// Chooses the `k` experts with the largest logits and sorts the pairs. Not differentiable, like any choice.
///
/// # Shapes
/// `logits` `[tokens, experts]`
pub fn route(logits: &Tensor<2>, k: usize) -> Routing {
    if chooses(&logits.device(), k, logits.dims()[1]) {
        let (experts, pairs, places, offsets) = Dispatch::route(logits.clone().into_dispatch(), k);
        return Routing {
            experts: Tensor::from_dispatch(experts),
            pairs: Tensor::from_dispatch(pairs),
            places: Tensor::from_dispatch(places),
            offsets: Tensor::from_dispatch(offsets),
        };
    }
    reference::route(logits, k)
}

/// Softmax over the chosen logits: `[tokens, experts]` to `[tokens, k]`.
pub fn expert_weights(logits: Tensor<2>, routing: &Routing) -> Tensor<2> {
    if chooses(&logits.device(), routing.top_k(), logits.dims()[1]) {
        let experts = routing.experts.clone().into_dispatch();
        // Weights are f32, whatever made the logits; no cast where there is nothing to do.
        let logits = logits.cast(DType::F32);
        return Tensor::from_dispatch(Dispatch::expert_weights(logits.into_dispatch(), experts));
    }
    reference::expert_weights(logits, routing)
}

/// A row for each pair, in sorted order: `[tokens, features]` to `[tokens * k, features]`.
pub fn take_tokens(x: Tensor<2>, routing: &Routing) -> Tensor<2> {
    if has_form_if(&x.device(), x.dtype(), x.dims()[1].is_multiple_of(8)) {
        let (pairs, places) = (routing.pairs.clone().into_dispatch(), routing.places.clone().into_dispatch());
        return Tensor::from_dispatch(Dispatch::take_tokens(x.into_dispatch(), pairs, places));
    }
    reference::take_tokens(x, routing)
}

/// Each token's weighted sum over its pairs: `[tokens * k, features]` in sorted order to `[tokens, features]`.
///
/// # Shapes
/// `weights` `[tokens, k]`
pub fn combine_experts(y: Tensor<2>, weights: Tensor<2>, routing: &Routing) -> Tensor<2> {
    if has_form_if(&y.device(), y.dtype(), y.dims()[1].is_multiple_of(8)) {
        let (pairs, places) = (routing.pairs.clone().into_dispatch(), routing.places.clone().into_dispatch());
        let (y, weights) = (y.into_dispatch(), weights.cast(DType::F32).into_dispatch());
        return Tensor::from_dispatch(Dispatch::combine_experts(y, weights, pairs, places));
    }
    reference::combine_experts(y, weights, routing)
}

/// Whether a device has a form that chooses `k` of so many experts.
fn chooses(device: &Device, k: usize, n_experts: usize) -> bool {
    let fits = cfg_select! {
        feature = "cuda" => cuda::can_choose(k, n_experts),
        _ => k <= n_experts,
    };
    crate::is_cpu(device) || (fits && crate::is_cuda(device))
}
