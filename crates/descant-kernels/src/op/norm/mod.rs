//! RMSNorm: each row divided by its root mean square, times a weight a feature.
//!
//! Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization". The weight is frozen.

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod reference;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch};
use burn::tensor::Tensor;

use crate::device::has_form_if;
use crate::op::graph::operator;

/// Normalizes the rows of `x`.
///
/// # Shapes
/// `x` and the result `[tokens, features]`, `weight` `[features]`.
pub fn rms_norm(x: Tensor<2>, weight: &Tensor<1>, epsilon: f64) -> Tensor<2> {
    if has_form_if(&x.device(), x.dtype(), x.dims()[1].is_multiple_of(8)) {
        let y = Dispatch::rms_norm(x.into_dispatch(), weight.clone().into_dispatch(), epsilon);
        return Tensor::from_dispatch(y);
    }
    reference::rms_norm(x, weight, epsilon)
}

/// Forward and backward of a backend.
pub(crate) trait NormKernel: Backend {
    fn rms_norm_forward(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self>;
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f64,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

operator! {
    (Cube: cfg(feature = "cuda"), Flex, Autodiff) pub(crate) trait NormOp of NormKernel;
    fn rms_norm(x: FloatTensor, weight: FloatTensor; epsilon: f64);
    B::rms_norm_forward(x, weight, epsilon);
    [x] => |(x, weight, epsilon), grad| [B::rms_norm_backward(x, weight, epsilon, grad)], |_| {
        let (x, weight) = (x.primitive().clone(), weight.into_primitive());
        (B::rms_norm_forward(x.clone(), weight.clone(), epsilon), (x, weight, epsilon))
    }
}
