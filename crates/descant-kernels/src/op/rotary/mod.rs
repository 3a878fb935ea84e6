//! Rotary position embedding: each head's two halves turned by the token's angles.
//!
//! Pairs are (i, i + dim / 2), as in transformers ("halves", not interleaved). Source: Su et al. 2021, "RoFormer".

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod reference;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use crate::device::has_form_if;
use crate::op::graph::node;

/// Turns `x` by the angles of its tokens.
///
/// # Shapes
/// `x` and the result `[tokens, heads, dim]`; `cos` and `sin` `[tokens, dim / 2]`, of each token's position.
pub fn rotary(x: Tensor<3>, cos: &Tensor<2>, sin: &Tensor<2>) -> Tensor<3> {
    if has_form_if(&x.device(), x.dtype(), x.dims()[2].is_multiple_of(16)) {
        let (cos, sin) = (cos.clone().into_dispatch(), sin.clone().into_dispatch());
        return Tensor::from_dispatch(Dispatch::rotary(x.into_dispatch(), cos, sin));
    }
    reference::rotary(x, cos, sin)
}

/// Which way to turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Forward,
    /// By the negative angles: the transpose, hence the backward.
    Back,
}

/// The rotation of a backend.
pub(crate) trait RotaryKernel: Backend {
    fn turn(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        turn: Turn,
    ) -> FloatTensor<Self>;
}

#[backend_extension(Cube: cfg(feature = "cuda"), Flex, Autodiff)]
pub(crate) trait RotaryOp: Backend {
    fn rotary(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl<B: RotaryKernel> RotaryOp for B {
    fn rotary(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::turn(x, cos, sin, Turn::Forward)
    }
}

impl<B: RotaryKernel, C: CheckpointStrategy> RotaryOp for Autodiff<B, C> {
    fn rotary(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        let back = |(cos, sin), grad| [B::turn(grad, cos, sin, Turn::Back)];
        node::<B, C, _, _, _>([&x], back, |_| {
            let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
            (B::turn(x.primitive().clone(), cos.clone(), sin.clone(), Turn::Forward), (cos, sin))
        })
    }
}
