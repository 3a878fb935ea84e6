//! RMSNorm on slices, a row at a time.

use burn::backend::Flex;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::NormKernel;
use crate::cpu::vector::{dot, vectorized};
use crate::cpu::{contiguous, f32s, tensor_f32};

/// Rows a task takes.
const ROWS: usize = 64;

impl NormKernel for Flex {
    fn rms_norm_forward(x: FlexTensor, weight: FlexTensor, epsilon: f64) -> FlexTensor {
        let shape = x.layout().shape().clone();
        let (x, weight) = (contiguous(x), contiguous(weight));
        let (x, weight) = (f32s(&x), f32s(&weight));
        let width = weight.len();
        let mut y = vec![0.0; x.len()];
        y.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width)).for_each(|(y, x)| {
            vectorized(|| {
                for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    let scale = inverse_rms(x, epsilon);
                    for i in 0..width {
                        y[i] = x[i] * scale * weight[i];
                    }
                }
            });
        });
        tensor_f32(y, shape)
    }

    /// With s = 1 / rms(x) and h = weight * grad: dx = s h - x s^3 mean(h x).
    fn rms_norm_backward(x: FlexTensor, weight: FlexTensor, epsilon: f64, grad: FlexTensor) -> FlexTensor {
        let shape = x.layout().shape().clone();
        let (x, weight, grad) = (contiguous(x), contiguous(weight), contiguous(grad));
        let (x, weight, grad) = (f32s(&x), f32s(&weight), f32s(&grad));
        let width = weight.len();
        let mut dx = vec![0.0; x.len()];
        let chunk = ROWS * width;
        dx.par_chunks_mut(chunk).zip(x.par_chunks(chunk).zip(grad.par_chunks(chunk))).for_each(
            |(dx, (x, grad))| {
                vectorized(|| {
                    let rows = x.chunks_exact(width).zip(grad.chunks_exact(width));
                    for (dx, (x, grad)) in dx.chunks_exact_mut(width).zip(rows) {
                        let scale = inverse_rms(x, epsilon);
                        for i in 0..width {
                            dx[i] = weight[i] * grad[i];
                        }
                        let along = dot(dx, x) * scale * scale * scale / width as f32;
                        for i in 0..width {
                            dx[i] = dx[i] * scale - x[i] * along;
                        }
                    }
                });
            },
        );
        tensor_f32(dx, shape)
    }
}

#[inline(always)]
fn inverse_rms(x: &[f32], epsilon: f64) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + epsilon as f32).sqrt()
}
