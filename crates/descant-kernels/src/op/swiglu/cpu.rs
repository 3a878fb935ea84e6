//! The activation on slices.

use burn::backend::{Flex, TensorMetadata};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::SwigluKernel;
use super::reference::ALPHA;
use crate::cpu::vector::{sigmoid, vectorized};
use crate::cpu::{contiguous, f32s, tensor_f32};

/// Output elements a task takes.
const ELEMENTS: usize = 16 * 1024;

impl SwigluKernel for Flex {
    fn swiglu_forward(gate_up: FlexTensor, limit: f32) -> FlexTensor {
        let shape = gate_up.shape();
        let gate_up = contiguous(gate_up);
        let gate_up = f32s(&gate_up);
        let mut y = vec![0.0; gate_up.len() / 2];
        y.par_chunks_mut(ELEMENTS).zip(gate_up.par_chunks(2 * ELEMENTS)).for_each(|(y, x)| {
            vectorized(|| {
                for (y, x) in y.iter_mut().zip(x.chunks_exact(2)) {
                    let (gate, up) = (x[0].min(limit), x[1].clamp(-limit, limit));
                    *y = (up + 1.0) * gate * sigmoid(ALPHA * gate);
                }
            });
        });
        tensor_f32(y, [shape[0], shape[1] / 2])
    }

    /// A clamp passes the gradient where it does not bite, its borders included.
    fn swiglu_backward(gate_up: FlexTensor, limit: f32, grad: FlexTensor) -> FlexTensor {
        let shape = gate_up.shape();
        let (gate_up, grad) = (contiguous(gate_up), contiguous(grad));
        let (gate_up, grad) = (f32s(&gate_up), f32s(&grad));
        let mut dx = vec![0.0; gate_up.len()];
        let inputs = gate_up.par_chunks(2 * ELEMENTS).zip(grad.par_chunks(ELEMENTS));
        dx.par_chunks_mut(2 * ELEMENTS).zip(inputs).for_each(|(dx, (x, grad))| {
            vectorized(|| {
                for ((dx, x), grad) in dx.chunks_exact_mut(2).zip(x.chunks_exact(2)).zip(grad) {
                    let (gate, up) = (x[0].min(limit), x[1].clamp(-limit, limit));
                    let s = sigmoid(ALPHA * gate);
                    let slope = s + ALPHA * gate * s * (1.0 - s);
                    dx[0] = if x[0] <= limit { grad * (up + 1.0) * slope } else { 0.0 };
                    dx[1] = if x[1].abs() <= limit { grad * gate * s } else { 0.0 };
                }
            });
        });
        tensor_f32(dx, shape)
    }
}
