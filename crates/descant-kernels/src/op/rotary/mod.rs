//! Rotary position embedding: each head's two halves turned by the token's angles.
//!
//! Pairs are (i, i + dim / 2), as in transformers ("halves", not interleaved). Source: Su et al. 2021, "RoFormer".

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod reference;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

use crate::device::has_form_if;

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

impl RotaryOp for Flex {
    fn rotary(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::turn(x, cos, sin, Turn::Forward)
    }
}

#[derive(Debug)]
struct RotaryBackward;

impl<B: RotaryKernel> Backward<B, 1> for RotaryBackward {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (cos, sin) = ops.state;
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, B::turn(grad, cos, sin, Turn::Back));
        }
    }
}

impl<B: RotaryKernel, C: CheckpointStrategy> RotaryOp for Autodiff<B, C> {
    fn rotary(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        match RotaryBackward.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::turn(x.into_primitive(), cos.clone(), sin.clone(), Turn::Forward);
                prep.finish((cos, sin), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::turn(x.into_primitive(), cos, sin, Turn::Forward)),
        }
    }
}
