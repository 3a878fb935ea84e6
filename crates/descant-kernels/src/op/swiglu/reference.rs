//! The activation in burn operations.

use burn::tensor::{Tensor, activation::sigmoid};

use super::alpha::SWIGLU_ALPHA;

/// The slope as it is computed with.
pub(crate) const ALPHA: f32 = SWIGLU_ALPHA as f32;

/// See [`crate::swiglu()`].
pub fn swiglu(gate_up: Tensor<2>, limit: f32) -> Tensor<2> {
    let [n_rows, width] = gate_up.dims();
    let pairs = gate_up.reshape([n_rows, width / 2, 2]);
    let gate = pairs.clone().narrow(2, 0, 1).reshape([n_rows, width / 2]).clamp_max(limit);
    let up = pairs.narrow(2, 1, 1).reshape([n_rows, width / 2]).clamp(-limit, limit);
    (up + 1.0) * gate.clone() * sigmoid(gate * ALPHA)
}
