//! The routing operators in burn's graph.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, TensorMetadata as _, backend_extension};

use crate::op::graph::operator;

/// Forward and backward of a backend.
pub(super) trait RouteKernel: Backend {
    fn choose(
        logits: FloatTensor<Self>,
        k: usize,
    ) -> (IntTensor<Self>, IntTensor<Self>, IntTensor<Self>, IntTensor<Self>);

    fn weights_forward(logits: FloatTensor<Self>, experts: IntTensor<Self>) -> FloatTensor<Self>;
    fn weights_backward(
        weights: FloatTensor<Self>,
        experts: IntTensor<Self>,
        n_experts: usize,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    fn take_forward(
        x: FloatTensor<Self>,
        pairs: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self>;
    fn take_backward(grad: FloatTensor<Self>, places: IntTensor<Self>, n_tokens: usize) -> FloatTensor<Self>;

    fn combine_forward(
        y: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self>;
    /// Gradients of y and of the weights.
    fn combine_backward(
        y: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        pairs: IntTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];
}

#[backend_extension(Cube: cfg(feature = "cuda"), Flex, Autodiff)]
pub(super) trait RouteOp: Backend {
    fn route(
        logits: FloatTensor<Self>,
        k: usize,
    ) -> (IntTensor<Self>, IntTensor<Self>, IntTensor<Self>, IntTensor<Self>);
}

impl<B: RouteKernel> RouteOp for B {
    fn route(
        logits: FloatTensor<Self>,
        k: usize,
    ) -> (IntTensor<Self>, IntTensor<Self>, IntTensor<Self>, IntTensor<Self>) {
        Self::choose(logits, k)
    }
}

impl<B: RouteKernel, C: CheckpointStrategy> RouteOp for Autodiff<B, C> {
    fn route(
        logits: FloatTensor<Self>,
        k: usize,
    ) -> (IntTensor<Self>, IntTensor<Self>, IntTensor<Self>, IntTensor<Self>) {
        B::choose(logits.into_primitive(), k)
    }
}

operator! {
    (Cube: cfg(feature = "cuda"), Flex, Autodiff) pub(super) trait WeightsOp of RouteKernel;
    fn expert_weights(logits: FloatTensor, experts: IntTensor);
    B::weights_forward(logits, experts);
    [logits] => |(weights, experts, n), grad| [B::weights_backward(weights, experts, n, grad)], |_| {
        let n_experts = logits.shape()[1];
        let weights = B::weights_forward(logits.primitive().clone(), experts.clone());
        (weights.clone(), (weights, experts, n_experts))
    }
}

operator! {
    (Cube: cfg(feature = "cuda"), Flex, Autodiff) pub(super) trait TakeOp of RouteKernel;
    fn take_tokens(x: FloatTensor, pairs: IntTensor, places: IntTensor);
    B::take_forward(x, pairs, places);
    [x] => |(places, n_tokens), grad| [B::take_backward(grad, places, n_tokens)], |_| {
        let n_tokens = x.shape()[0];
        (B::take_forward(x.primitive().clone(), pairs, places.clone()), (places, n_tokens))
    }
}

operator! {
    (Cube: cfg(feature = "cuda"), Flex, Autodiff) pub(super) trait CombineOp of RouteKernel;
    fn combine_experts(y: FloatTensor, weights: FloatTensor, pairs: IntTensor, places: IntTensor);
    { let _ = pairs; B::combine_forward(y, weights, places) };
    [y, weights] => |(y, weights, pairs), grad| B::combine_backward(y, weights, pairs, grad), |_| {
        let [y, weights] = [&y, &weights].map(|tensor| tensor.primitive().clone());
        (B::combine_forward(y.clone(), weights.clone(), places), (y, weights, pairs))
    }
}
