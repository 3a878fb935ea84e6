//! The weighted sum of losses, from which a backward begins.
//!
//! Its gradient is the weights, to the bit. burn's product, sum and their backward would be kernels of its own, another for
//! each way in which a number of losses can be divided by the length of a vector.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch};
use burn::tensor::{DType, Tensor};

use super::reference;
use crate::op::graph::operator;

/// Losses times their weights, all together: `[1]`.
///
/// # Shapes
/// `losses` and `weights` `[rows]`, f32; the weights lie in no graph.
///
/// # Panics
/// If the lengths differ.
pub fn weighted_sum(losses: Tensor<1>, weights: Tensor<1>) -> Tensor<1> {
    assert_eq!(losses.dims(), weights.dims(), "a weight for each loss");
    let device = losses.device();
    let floats = losses.dtype() == DType::F32 && weights.dtype() == DType::F32;
    if floats && (crate::is_cpu(&device) || crate::is_cuda(&device)) {
        let (losses, weights) = (losses.into_dispatch(), weights.into_dispatch());
        return Tensor::from_dispatch(Dispatch::weighted_sum(losses, weights));
    }
    reference::weighted_sum(losses, weights)
}

/// Forward and backward of a backend.
pub(crate) trait TotalKernel: Backend {
    fn total(losses: FloatTensor<Self>, weights: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The weights times the only number of `factor`.
    fn times(weights: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self>;
}

operator! {
    (Cube: cfg(feature = "cuda"), Flex, Autodiff) pub(crate) trait TotalOp of TotalKernel;
    fn weighted_sum(losses: FloatTensor, weights: FloatTensor);
    B::total(losses, weights);
    [losses] => |weights, grad| [B::times(weights, grad)],
    |_| {
        let weights = weights.into_primitive();
        (B::total(losses.primitive().clone(), weights.clone()), weights)
    }
}
