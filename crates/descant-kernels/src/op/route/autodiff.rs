//! The routing operators in burn's graph.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Flex, backend_extension};

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

impl RouteOp for Flex {
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

impl WeightsOp for Flex {
    fn expert_weights(logits: FloatTensor<Self>, experts: IntTensor<Self>) -> FloatTensor<Self> {
        Self::weights_forward(logits, experts)
    }
}

#[derive(Debug)]
struct WeightsBackward;

impl<B: RouteKernel> Backward<B, 1> for WeightsBackward {
    type State = (FloatTensor<B>, IntTensor<B>, usize);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (weights, experts, n_experts) = ops.state;
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, B::weights_backward(weights, experts, n_experts, grad));
        }
    }
}

impl<B: RouteKernel, C: CheckpointStrategy> WeightsOp for Autodiff<B, C> {
    fn expert_weights(logits: FloatTensor<Self>, experts: IntTensor<Self>) -> FloatTensor<Self> {
        let prep = WeightsBackward.prepare::<C>([logits.node()]).compute_bound();
        let logits = logits.into_primitive();
        let n_experts = burn::backend::TensorMetadata::shape(&logits)[1];
        let weights = B::weights_forward(logits, experts.clone());
        match prep.stateful() {
            OpsKind::Tracked(prep) => prep.finish((weights.clone(), experts, n_experts), weights),
            OpsKind::UnTracked(prep) => prep.finish(weights),
        }
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

impl TakeOp for Flex {
    fn take_tokens(
        x: FloatTensor<Self>,
        pairs: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        Self::take_forward(x, pairs, places)
    }
}

#[derive(Debug)]
struct TakeBackward;

impl<B: RouteKernel> Backward<B, 1> for TakeBackward {
    type State = (IntTensor<B>, usize);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (places, n_tokens) = ops.state;
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, B::take_backward(grad, places, n_tokens));
        }
    }
}

impl<B: RouteKernel, C: CheckpointStrategy> TakeOp for Autodiff<B, C> {
    fn take_tokens(
        x: FloatTensor<Self>,
        pairs: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let prep = TakeBackward.prepare::<C>([x.node()]).compute_bound();
        let x = x.into_primitive();
        let n_tokens = burn::backend::TensorMetadata::shape(&x)[0];
        let y = B::take_forward(x, pairs, places.clone());
        match prep.stateful() {
            OpsKind::Tracked(prep) => prep.finish((places, n_tokens), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
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

impl CombineOp for Flex {
    fn combine_experts(
        y: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        _pairs: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        Self::combine_forward(y, weights, places)
    }
}

#[derive(Debug)]
struct CombineBackward;

impl<B: RouteKernel> Backward<B, 2> for CombineBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, IntTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (y, weights, pairs) = ops.state;
        let gradients = B::combine_backward(y, weights, pairs, grad);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: RouteKernel, C: CheckpointStrategy> CombineOp for Autodiff<B, C> {
    fn combine_experts(
        y: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        pairs: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let prep = CombineBackward.prepare::<C>([y.node(), weights.node()]).compute_bound();
        let (y, weights) = (y.into_primitive(), weights.into_primitive());
        let out = B::combine_forward(y.clone(), weights.clone(), places);
        match prep.stateful() {
            OpsKind::Tracked(prep) => prep.finish((y, weights, pairs), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }
}
