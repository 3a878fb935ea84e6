//! Rows by index in burn's graph, on a card.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::choice::Choice;

/// See [`super::select_rows`]; `rows` rise.
pub(super) fn select_rows(x: Tensor<2>, rows: &[usize]) -> Tensor<2> {
    let choice = Choice::new(rows, x.dims()[0], &x.device());
    Tensor::from_dispatch(Dispatch::select_rows(x.into_dispatch(), choice))
}

/// Forward and backward of a backend.
pub(super) trait SelectKernel: Backend {
    fn chosen(x: FloatTensor<Self>, choice: &Choice) -> FloatTensor<Self>;
    fn spread(grad: FloatTensor<Self>, choice: &Choice) -> FloatTensor<Self>;
}

#[backend_extension(Cube, Autodiff)]
pub(super) trait SelectOp: Backend {
    fn select_rows(x: FloatTensor<Self>, choice: Choice) -> FloatTensor<Self>;
}

impl SelectOp for burn_cubecl::CubeBackend {
    fn select_rows(x: FloatTensor<Self>, choice: Choice) -> FloatTensor<Self> {
        Self::chosen(x, &choice)
    }
}

#[derive(Debug)]
struct SelectBackward;

impl<B: SelectKernel> Backward<B, 1> for SelectBackward {
    type State = Choice;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, B::spread(grad, &ops.state));
        }
    }
}

impl<B: SelectKernel, C: CheckpointStrategy> SelectOp for Autodiff<B, C> {
    fn select_rows(x: FloatTensor<Self>, choice: Choice) -> FloatTensor<Self> {
        let prep = SelectBackward.prepare::<C>([x.node()]).compute_bound();
        let y = B::chosen(x.into_primitive(), &choice);
        match prep.stateful() {
            OpsKind::Tracked(prep) => prep.finish(choice, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}
