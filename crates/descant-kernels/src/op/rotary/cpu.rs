//! Rotary embedding on slices, a token at a time.

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{RotaryKernel, Turn};
use crate::cpu::vector::vectorized;
use crate::cpu::{contiguous, f32s, tensor_f32};

/// Tokens a task takes.
const TOKENS: usize = 64;

impl RotaryKernel for Flex {
    fn turn(x: FlexTensor, cos: FlexTensor, sin: FlexTensor, turn: Turn) -> FlexTensor {
        let shape = x.shape();
        let (x, cos, sin) = (contiguous(x), contiguous(cos), contiguous(sin));
        let (x, cos, sin) = (f32s(&x), f32s(&cos), f32s(&sin));
        let (width, dim) = (shape[1] * shape[2], shape[2]);
        let half = dim / 2;
        let sign = if turn == Turn::Forward { 1.0 } else { -1.0 };
        let mut y = vec![0.0; x.len()];
        y.par_chunks_mut(TOKENS * width).enumerate().for_each(|(task, y)| {
            vectorized(|| {
                for (i, y) in y.chunks_exact_mut(width).enumerate() {
                    let token = task * TOKENS + i;
                    let x = &x[token * width..][..width];
                    let (cos, sin) = (&cos[token * half..][..half], &sin[token * half..][..half]);
                    for (y, x) in y.chunks_exact_mut(dim).zip(x.chunks_exact(dim)) {
                        let ((y1, y2), (x1, x2)) = (y.split_at_mut(half), x.split_at(half));
                        for j in 0..half {
                            y1[j] = x1[j] * cos[j] - sign * x2[j] * sin[j];
                            y2[j] = x2[j] * cos[j] + sign * x1[j] * sin[j];
                        }
                    }
                }
            });
        });
        tensor_f32(y, shape)
    }
}
