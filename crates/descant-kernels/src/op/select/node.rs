//! Rows by index in burn's graph, on a card.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch};
use burn::tensor::Tensor;

use super::choice::Choice;
use crate::op::graph::operator;

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

operator! {
    (Cube, Autodiff) pub(super) trait SelectOp of SelectKernel;
    fn select_rows(x: FloatTensor; choice: Choice);
    B::chosen(x, &choice);
    [x] => |choice, grad| [B::spread(grad, &choice)],
    |_| (B::chosen(x.primitive().clone(), &choice), choice)
}
