//! gpt-oss' activation: clamped SwiGLU on interleaved gate and up.
//!
//! With g = min(gate, limit) and u = clamp(up, -limit, limit): (u + 1) · g · sigmoid(1.702 · g). Feature 2k of the
//! input is gate k, feature 2k + 1 is up k. Source: `GptOssExperts` of transformers; the reference code of OpenAI.

mod alpha;
mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod reference;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch};
use burn::tensor::Tensor;

use crate::device::has_form_if;
use crate::op::graph::operator;

pub use alpha::SWIGLU_ALPHA;

/// The activation: `[rows, 2 * width]` to `[rows, width]`.
pub fn swiglu(gate_up: Tensor<2>, limit: f32) -> Tensor<2> {
    if has_form_if(&gate_up.device(), gate_up.dtype(), gate_up.dims()[1].is_multiple_of(16)) {
        return Tensor::from_dispatch(Dispatch::swiglu(gate_up.into_dispatch(), limit));
    }
    reference::swiglu(gate_up, limit)
}

/// Forward and backward of a backend.
pub(crate) trait SwigluKernel: Backend {
    fn swiglu_forward(gate_up: FloatTensor<Self>, limit: f32) -> FloatTensor<Self>;
    fn swiglu_backward(gate_up: FloatTensor<Self>, limit: f32, grad: FloatTensor<Self>) -> FloatTensor<Self>;
}

operator! {
    (Cube: cfg(feature = "cuda"), Flex, Autodiff) pub(crate) trait SwigluOp of SwigluKernel;
    fn swiglu(gate_up: FloatTensor; limit: f32);
    B::swiglu_forward(gate_up, limit);
    [gate_up] => |(gate_up, limit), grad| [B::swiglu_backward(gate_up, limit, grad)], |_| {
        let gate_up = gate_up.primitive().clone();
        (B::swiglu_forward(gate_up.clone(), limit), (gate_up, limit))
    }
}
