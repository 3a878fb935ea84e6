//! Rows by index in burn's graph, on a card.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::choice::Choice;
use crate::op::graph::node;

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

impl<B: SelectKernel> SelectOp for B {
    fn select_rows(x: FloatTensor<Self>, choice: Choice) -> FloatTensor<Self> {
        Self::chosen(x, &choice)
    }
}

impl<B: SelectKernel, C: CheckpointStrategy> SelectOp for Autodiff<B, C> {
    fn select_rows(x: FloatTensor<Self>, choice: Choice) -> FloatTensor<Self> {
        let back = |choice, grad| [B::spread(grad, &choice)];
        node::<B, C, _, _, _>([&x], back, |_| (B::chosen(x.primitive().clone(), &choice), choice))
    }
}
