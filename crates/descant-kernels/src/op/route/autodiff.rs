//! The routing operators in burn's graph.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, TensorMetadata as _, backend_extension};

use crate::op::graph::node;

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

#[backend_extension(Cube: cfg(feature = "cuda"), Flex, Autodiff)]
pub(super) trait WeightsOp: Backend {
    fn expert_weights(logits: FloatTensor<Self>, experts: IntTensor<Self>) -> FloatTensor<Self>;
}

impl<B: RouteKernel> WeightsOp for B {
    fn expert_weights(logits: FloatTensor<Self>, experts: IntTensor<Self>) -> FloatTensor<Self> {
        Self::weights_forward(logits, experts)
    }
}

impl<B: RouteKernel, C: CheckpointStrategy> WeightsOp for Autodiff<B, C> {
    fn expert_weights(logits: FloatTensor<Self>, experts: IntTensor<Self>) -> FloatTensor<Self> {
        let back = |(weights, experts, n), grad| [B::weights_backward(weights, experts, n, grad)];
        node::<B, C, _, _, _>([&logits], back, |_| {
            let n_experts = logits.shape()[1];
            let weights = B::weights_forward(logits.primitive().clone(), experts.clone());
            (weights.clone(), (weights, experts, n_experts))
        })
    }
}

#[backend_extension(Cube: cfg(feature = "cuda"), Flex, Autodiff)]
pub(super) trait TakeOp: Backend {
    fn take_tokens(
        x: FloatTensor<Self>,
        pairs: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl<B: RouteKernel> TakeOp for B {
    fn take_tokens(
        x: FloatTensor<Self>,
        pairs: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        Self::take_forward(x, pairs, places)
    }
}

impl<B: RouteKernel, C: CheckpointStrategy> TakeOp for Autodiff<B, C> {
    fn take_tokens(
        x: FloatTensor<Self>,
        pairs: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let back = |(places, n_tokens), grad| [B::take_backward(grad, places, n_tokens)];
        node::<B, C, _, _, _>([&x], back, |_| {
            let n_tokens = x.shape()[0];
            (B::take_forward(x.primitive().clone(), pairs, places.clone()), (places, n_tokens))
        })
    }
}

#[backend_extension(Cube: cfg(feature = "cuda"), Flex, Autodiff)]
pub(super) trait CombineOp: Backend {
    fn combine_experts(
        y: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        pairs: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl<B: RouteKernel> CombineOp for B {
    fn combine_experts(
        y: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        _pairs: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        Self::combine_forward(y, weights, places)
    }
}

impl<B: RouteKernel, C: CheckpointStrategy> CombineOp for Autodiff<B, C> {
    fn combine_experts(
        y: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        pairs: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let back = |(y, weights, pairs), grad| B::combine_backward(y, weights, pairs, grad);
        node::<B, C, _, _, _>([&y, &weights], back, |_| {
            let [y, weights] = [&y, &weights].map(|tensor| tensor.primitive().clone());
            (B::combine_forward(y.clone(), weights.clone(), places), (y, weights, pairs))
        })
    }
}
