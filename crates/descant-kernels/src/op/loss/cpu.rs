//! Cross-entropy on slices, a run of rows a task.

use burn::backend::{Flex, TensorMetadata};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::total::TotalKernel;
use super::{LogitsRoom, LossKernel};
use crate::cpu::matmul::{Into, Matrix, matmul};
use crate::cpu::vector::{exp_sum, max, vectorized};
use crate::cpu::{contiguous, f32s, i32s, tensor_f32};

/// Rows whose logits a task keeps at once: 51 MB at gpt-oss' vocabulary.
const ROWS: usize = 64;

impl LossKernel for Flex {
    fn losses(
        hidden: FlexTensor,
        head: FlexTensor,
        targets: FlexTensor,
        _room: LogitsRoom,
        with_gradient: bool,
    ) -> (FlexTensor, Option<FlexTensor>) {
        let (hidden, head, targets) = (contiguous(hidden), contiguous(head), contiguous(targets));
        let (n_rows, width, n_words) = (hidden.shape()[0], hidden.shape()[1], head.shape()[0]);
        let (hidden, head, targets) = (f32s(&hidden), f32s(&head), i32s(&targets));
        let head = Matrix::packed(head, n_words, width);
        let mut losses = vec![0.0; n_rows];
        let mut gradient = vec![0.0; if with_gradient { n_rows * width } else { 0 }];
        let task = |losses: &mut [f32], gradient: Option<&mut [f32]>, hidden: &[f32], targets: &[i32]| {
            let n = losses.len();
            let mut logits = vec![0.0; n * n_words];
            matmul(&mut logits, n_words, Into::Overwrite, 1.0, Matrix::packed(hidden, n, width), head.t());
            vectorized(|| {
                for ((loss, row), &target) in
                    losses.iter_mut().zip(logits.chunks_exact_mut(n_words)).zip(targets)
                {
                    let target = target as usize;
                    let (shift, wanted) = (max(row), row[target]);
                    let sum = exp_sum(row, shift);
                    *loss = shift - wanted + sum.ln();
                    let inverse = 1.0 / sum;
                    for p in row.iter_mut() {
                        *p *= inverse;
                    }
                    row[target] -= 1.0;
                }
            });
            if let Some(gradient) = gradient {
                let probabilities = Matrix::packed(&logits, n, n_words);
                matmul(gradient, width, Into::Overwrite, 1.0, probabilities, head);
            }
        };
        let inputs = hidden.par_chunks(ROWS * width).zip(targets.par_chunks(ROWS));
        let rows = losses.par_chunks_mut(ROWS).zip(inputs);
        if with_gradient {
            rows.zip(gradient.par_chunks_mut(ROWS * width)).for_each(
                |((losses, (hidden, targets)), gradient)| task(losses, Some(gradient), hidden, targets),
            );
        } else {
            rows.for_each(|(losses, (hidden, targets))| task(losses, None, hidden, targets));
        }
        let gradient = with_gradient.then(|| tensor_f32(gradient, [n_rows, width]));
        (tensor_f32(losses, [n_rows]), gradient)
    }

    fn scale_rows(x: FlexTensor, factors: FlexTensor) -> FlexTensor {
        let shape = x.shape();
        let (x, factors) = (contiguous(x), contiguous(factors));
        let rows = f32s(&x).chunks_exact(shape[1]).zip(f32s(&factors));
        let scaled = rows.flat_map(|(row, factor)| row.iter().map(move |x| x * factor)).collect();
        tensor_f32(scaled, shape)
    }
}

impl TotalKernel for Flex {
    fn total(losses: FlexTensor, weights: FlexTensor) -> FlexTensor {
        let (losses, weights) = (contiguous(losses), contiguous(weights));
        let sum = f32s(&losses).iter().zip(f32s(&weights)).map(|(loss, weight)| loss * weight).sum();
        tensor_f32(vec![sum], [1])
    }

    fn times(weights: FlexTensor, factor: FlexTensor) -> FlexTensor {
        let (weights, factor) = (contiguous(weights), contiguous(factor));
        let factor = f32s(&factor)[0];
        let scaled: Vec<f32> = f32s(&weights).iter().map(|weight| weight * factor).collect();
        tensor_f32(scaled, weights.shape())
    }
}
