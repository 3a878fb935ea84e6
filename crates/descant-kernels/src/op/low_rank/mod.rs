//! The trainable path beside a frozen product: y = scaling · (x A^T) B^T, with one pair (A, B) or one an expert.
//!
//! Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models".

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub(crate) mod reference;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch};
use burn::tensor::Tensor;

use crate::op::graph::operator;
use crate::op::linear::{Groups, RowGroups};

/// The low-rank product, each row with its group's pair.
///
/// # Shapes
/// - `x` `[rows, in]`, the result `[rows, out]`
/// - `a` `[matrices, rank, in]`, `b` `[matrices, out, rank]`
pub fn low_rank(x: Tensor<2>, a: Tensor<3>, b: Tensor<3>, scaling: f32, groups: &Groups) -> Tensor<2> {
    if has_form(&x, &a, &b) {
        let (x, a, b) = (x.into_dispatch(), a.into_dispatch(), b.into_dispatch());
        return Tensor::from_dispatch(Dispatch::low_rank(x, a, b, groups.primitive(), scaling));
    }
    reference::low_rank(x, a, b, scaling, groups)
}

/// Whether the device's own form is written for these sizes; the CPU's takes all.
fn has_form(x: &Tensor<2>, a: &Tensor<3>, b: &Tensor<3>) -> bool {
    let ([_, rank, d_in], [_, d_out, _]) = (a.dims(), b.dims());
    let fits = rank <= crate::op::experts::RANK_WIDTH && d_in.is_multiple_of(32) && d_out.is_multiple_of(32);
    crate::is_cpu(&x.device()) || (fits && crate::device::has_form(&x.device(), x.dtype()))
}

/// What the backward needs again.
#[derive(Debug, Clone)]
pub(crate) struct Saved<B: Backend> {
    pub(crate) x: FloatTensor<B>,
    pub(crate) a: FloatTensor<B>,
    pub(crate) b: FloatTensor<B>,
    pub(crate) scaling: f32,
    pub(crate) groups: RowGroups<B>,
}

/// Forward and backward of a backend.
pub(crate) trait LowRankKernel: Backend {
    fn low_rank_forward(saved: Saved<Self>) -> FloatTensor<Self>;

    /// Gradients of x, a and b.
    fn low_rank_backward(saved: Saved<Self>, grad: FloatTensor<Self>) -> [FloatTensor<Self>; 3];
}

operator! {
    (Cube: cfg(feature = "cuda"), Flex, Autodiff) pub(crate) trait LowRankOp of LowRankKernel;
    fn low_rank(
        x: FloatTensor, a: FloatTensor, b: FloatTensor, #[extension_type] groups: RowGroups; scaling: f32
    );
    B::low_rank_forward(Saved { x, a, b, scaling, groups });
    [x, a, b] => B::low_rank_backward, |_| {
        let [x, a, b] = [&x, &a, &b].map(|tensor| tensor.primitive().clone());
        let saved = Saved { x, a, b, scaling, groups: groups.inner() };
        (B::low_rank_forward(saved.clone()), saved)
    }
}
