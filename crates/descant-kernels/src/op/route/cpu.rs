//! Routing on slices: a counting sort, and sums over a token's pairs in slot order.

use burn::backend::{Flex, TensorMetadata};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::autodiff::RouteKernel;
use crate::cpu::vector::{dot, vectorized};
use crate::cpu::{contiguous, f32s, i32s, tensor_f32, tensor_i32};

/// Tokens a task takes.
const TOKENS: usize = 64;

impl RouteKernel for Flex {
    fn choose(logits: FlexTensor, k: usize) -> (FlexTensor, FlexTensor, FlexTensor, FlexTensor) {
        let logits = contiguous(logits);
        let (n_tokens, n_experts) = (logits.shape()[0], logits.shape()[1]);
        let mut experts = vec![0i32; n_tokens * k];
        for (chosen, row) in experts.chunks_exact_mut(k).zip(f32s(&logits).chunks_exact(n_experts)) {
            top_k(row, chosen);
        }
        let mut offsets = vec![0i32; n_experts + 1];
        for &e in &experts {
            offsets[e as usize + 1] += 1;
        }
        for e in 0..n_experts {
            offsets[e + 1] += offsets[e];
        }
        let mut next = offsets.clone();
        let (mut pairs, mut places) = (vec![0i32; experts.len()], vec![0i32; experts.len()]);
        for (pair, &e) in experts.iter().enumerate() {
            let place = &mut next[e as usize];
            pairs[*place as usize] = pair as i32;
            places[pair] = *place;
            *place += 1;
        }
        let n_pairs = pairs.len();
        (
            tensor_i32(experts, [n_tokens, k]),
            tensor_i32(pairs, [n_pairs]),
            tensor_i32(places, [n_pairs]),
            tensor_i32(offsets, [n_experts + 1]),
        )
    }

    fn weights_forward(logits: FlexTensor, experts: FlexTensor) -> FlexTensor {
        let (logits, experts) = (contiguous(logits), contiguous(experts));
        let (n_experts, k) = (logits.shape()[1], experts.shape()[1]);
        let mut weights = Vec::with_capacity(experts.shape().num_elements());
        for (row, chosen) in f32s(&logits).chunks_exact(n_experts).zip(i32s(&experts).chunks_exact(k)) {
            // The first is the largest.
            let largest = row[chosen[0] as usize];
            let start = weights.len();
            weights.extend(chosen.iter().map(|&e| (row[e as usize] - largest).exp()));
            let sum: f32 = weights[start..].iter().sum();
            for w in &mut weights[start..] {
                *w /= sum;
            }
        }
        tensor_f32(weights, experts.shape())
    }

    fn weights_backward(
        weights: FlexTensor,
        experts: FlexTensor,
        n_experts: usize,
        grad: FlexTensor,
    ) -> FlexTensor {
        let (weights, experts, grad) = (contiguous(weights), contiguous(experts), contiguous(grad));
        let (n_tokens, k) = (weights.shape()[0], weights.shape()[1]);
        let mut dlogits = vec![0.0; n_tokens * n_experts];
        let rows = f32s(&weights).chunks_exact(k).zip(f32s(&grad).chunks_exact(k));
        for ((row, chosen), (w, g)) in
            dlogits.chunks_exact_mut(n_experts).zip(i32s(&experts).chunks_exact(k)).zip(rows)
        {
            let mean: f32 = w.iter().zip(g).map(|(w, g)| w * g).sum();
            for ((&e, w), g) in chosen.iter().zip(w).zip(g) {
                row[e as usize] = w * (g - mean);
            }
        }
        tensor_f32(dlogits, [n_tokens, n_experts])
    }

    fn take_forward(x: FlexTensor, pairs: FlexTensor, _places: FlexTensor) -> FlexTensor {
        let (x, pairs) = (contiguous(x), contiguous(pairs));
        let (n_tokens, width) = (x.shape()[0], x.shape()[1]);
        let (x, pairs) = (f32s(&x), i32s(&pairs));
        let k = pairs.len() / n_tokens.max(1);
        let mut y = vec![0.0; pairs.len() * width];
        y.par_chunks_mut(TOKENS * width).zip(pairs.par_chunks(TOKENS)).for_each(|(y, pairs)| {
            for (y, &pair) in y.chunks_exact_mut(width).zip(pairs) {
                y.copy_from_slice(&x[pair as usize / k * width..][..width]);
            }
        });
        tensor_f32(y, [pairs.len(), width])
    }

    fn take_backward(grad: FlexTensor, places: FlexTensor, n_tokens: usize) -> FlexTensor {
        let (grad, places) = (contiguous(grad), contiguous(places));
        let width = grad.shape()[1];
        let (grad, places) = (f32s(&grad), i32s(&places));
        let k = places.len() / n_tokens.max(1);
        let mut dx = vec![0.0; n_tokens * width];
        dx.par_chunks_mut(TOKENS * width).zip(places.par_chunks(TOKENS * k)).for_each(|(dx, places)| {
            vectorized(|| {
                for (dx, places) in dx.chunks_exact_mut(width).zip(places.chunks_exact(k)) {
                    for &place in places {
                        let grad = &grad[place as usize * width..][..width];
                        for i in 0..width {
                            dx[i] += grad[i];
                        }
                    }
                }
            });
        });
        tensor_f32(dx, [n_tokens, width])
    }

    fn combine_forward(y: FlexTensor, weights: FlexTensor, places: FlexTensor) -> FlexTensor {
        let (y, weights, places) = (contiguous(y), contiguous(weights), contiguous(places));
        let (n_tokens, k, width) = (weights.shape()[0], weights.shape()[1], y.shape()[1]);
        let (y, weights, places) = (f32s(&y), f32s(&weights), i32s(&places));
        let mut out = vec![0.0; n_tokens * width];
        let pairs = places.par_chunks(TOKENS * k).zip(weights.par_chunks(TOKENS * k));
        out.par_chunks_mut(TOKENS * width).zip(pairs).for_each(|(out, (places, weights))| {
            vectorized(|| {
                let tokens = places.chunks_exact(k).zip(weights.chunks_exact(k));
                for (out, (places, weights)) in out.chunks_exact_mut(width).zip(tokens) {
                    for (&place, &w) in places.iter().zip(weights) {
                        let y = &y[place as usize * width..][..width];
                        for i in 0..width {
                            out[i] += w * y[i];
                        }
                    }
                }
            });
        });
        tensor_f32(out, [n_tokens, width])
    }

    fn combine_backward(
        y: FlexTensor,
        weights: FlexTensor,
        pairs: FlexTensor,
        grad: FlexTensor,
    ) -> [FlexTensor; 2] {
        let (y, weights, pairs, grad) =
            (contiguous(y), contiguous(weights), contiguous(pairs), contiguous(grad));
        let (k, width, weights_shape) = (weights.shape()[1], y.shape()[1], weights.shape());
        let (y, weights, pairs, grad) = (f32s(&y), f32s(&weights), i32s(&pairs), f32s(&grad));
        let mut dy = vec![0.0; y.len()];
        let mut by_place = vec![0.0; pairs.len()];
        let inputs = pairs.par_chunks(TOKENS).zip(y.par_chunks(TOKENS * width));
        dy.par_chunks_mut(TOKENS * width).zip(by_place.par_chunks_mut(TOKENS)).zip(inputs).for_each(
            |((dy, dw), (pairs, y))| {
                vectorized(|| {
                    let rows =
                        dy.chunks_exact_mut(width).zip(dw).zip(pairs.iter().zip(y.chunks_exact(width)));
                    for ((dy, dw), (&pair, y)) in rows {
                        let (w, grad) = (weights[pair as usize], &grad[pair as usize / k * width..][..width]);
                        for i in 0..width {
                            dy[i] = w * grad[i];
                        }
                        *dw = dot(grad, y);
                    }
                });
            },
        );
        let mut dweights = vec![0.0; pairs.len()];
        for (&pair, dw) in pairs.iter().zip(by_place) {
            dweights[pair as usize] = dw;
        }
        let n_pairs = pairs.len();
        [tensor_f32(dy, [n_pairs, width]), tensor_f32(dweights, weights_shape)]
    }
}

/// Indices of the largest values, largest first, ties to the lower index.
fn top_k(row: &[f32], chosen: &mut [i32]) {
    for slot in 0..chosen.len() {
        let (taken, rest) = chosen.split_at_mut(slot);
        let mut best: Option<usize> = None;
        for (e, &value) in row.iter().enumerate() {
            if !taken.contains(&(e as i32)) && best.is_none_or(|b| value > row[b]) {
                best = Some(e);
            }
        }
        rest[0] = best.expect("k is at most the number of experts") as i32;
    }
}
