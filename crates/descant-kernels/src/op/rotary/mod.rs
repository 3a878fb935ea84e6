//! Rotary position embedding: each head's two halves turned by the token's angles.
//!
//! Pairs are (i, i + dim / 2), as in transformers ("halves", not interleaved). Source: Su et al. 2021, "RoFormer".

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod reference;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch};
use burn::tensor::Tensor;

use crate::device::has_form_if;
use crate::op::graph::operator;

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

operator! {
    (Cube: cfg(feature = "cuda"), Flex, Autodiff) pub(crate) trait RotaryOp of RotaryKernel;
    fn rotary(x: FloatTensor, cos: FloatTensor, sin: FloatTensor);
    B::turn(x, cos, sin, Turn::Forward);
    [x] => |(cos, sin), grad| [B::turn(grad, cos, sin, Turn::Back)], |_| {
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        (B::turn(x.primitive().clone(), cos.clone(), sin.clone(), Turn::Forward), (cos, sin))
    }
}
