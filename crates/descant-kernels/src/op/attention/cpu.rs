//! Attention on slices: blocks of queries against the keys they can see, two matrix products a block.
//!
//! The query heads that share a key head are stacked into one matrix, so that decoding, with a single query a
//! sequence, still multiplies by a few rows. A task is one sequence; inside it the key heads go in parallel, and
//! each owns its keys' gradients, so nothing is added in an order that threads decide.

use burn::backend::{Flex, TensorMetadata};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::node::{AttentionKernel, Saved};
use super::segments::{Segment, Segments};
use super::spec::AttentionSpec;
use crate::cpu::matmul::{Into, Matrix, matmul};
use crate::cpu::vector::{dot, exp, exp_sum, max, vectorized};
use crate::cpu::{contiguous, f32s, split_mut, tensor_f32};

/// Rows of stacked queries in a block.
const BLOCK_ROWS: usize = 64;

impl AttentionKernel for Flex {
    fn attention_forward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        sinks: FlexTensor,
        spec: AttentionSpec,
        segments: Segments,
    ) -> Saved<Self> {
        let (q, k, v, sinks) = (contiguous(q), contiguous(k), contiguous(v), contiguous(sinks));
        let heads = Heads::new(&q, &k);
        let shape = q.shape();
        let mut out = vec![0.0; shape.num_elements()];
        let mut lse = vec![0.0; shape[0] * heads.n];
        {
            let input = Input { q: f32s(&q), k: f32s(&k), v: f32s(&v), heads, spec };
            let sinks = f32s(&sinks);
            let lengths = || segments.as_slice().iter().map(|s| s.query_len);
            let outs = split_mut(&mut out, lengths().map(|n| n * heads.query_width()));
            let lses = split_mut(&mut lse, lengths().map(|n| n * heads.n));
            let tasks = segments.as_slice().par_iter().zip(outs).zip(lses);
            tasks.for_each(|((segment, out), lse)| {
                let parts: Vec<_> = (0..heads.n_kv)
                    .into_par_iter()
                    .map(|kv| vectorized(|| forward_group(&input, sinks, segment, kv)))
                    .collect();
                for (kv, (part_out, part_lse)) in parts.iter().enumerate() {
                    scatter(
                        out,
                        heads.query_width(),
                        kv * heads.group_width(),
                        part_out,
                        heads.group_width(),
                    );
                    scatter(lse, heads.n, kv * heads.group, part_lse, heads.group);
                }
            });
        }
        let out = tensor_f32(out, shape.clone());
        let lse = tensor_f32(lse, [shape[0], heads.n]);
        Saved { q, k, v, out, lse, spec, segments }
    }

    fn attention_backward(saved: Saved<Self>, grad: FlexTensor) -> [FlexTensor; 3] {
        let Saved { q, k, v, out, lse, spec, segments } = saved;
        let grad = contiguous(grad);
        let heads = Heads::new(&q, &k);
        let (q_shape, k_shape) = (q.shape(), k.shape());
        assert!(
            segments.keys_are_disjoint_and_ordered(k_shape[0]),
            "the backward of attention needs each sequence's keys beside the next one's"
        );
        let mut dq = vec![0.0; q_shape.num_elements()];
        let mut dk = vec![0.0; k_shape.num_elements()];
        let mut dv = vec![0.0; k_shape.num_elements()];
        let input = Input { q: f32s(&q), k: f32s(&k), v: f32s(&v), heads, spec };
        let past = Past { out: f32s(&out), lse: f32s(&lse), grad: f32s(&grad) };
        let rows = segments.as_slice();
        let dqs = split_mut(&mut dq, rows.iter().map(|s| s.query_len * heads.query_width()));
        let dks = split_mut(&mut dk, rows.iter().map(|s| s.key_len * heads.key_width()));
        let dvs = split_mut(&mut dv, rows.iter().map(|s| s.key_len * heads.key_width()));
        rows.par_iter().zip(dqs).zip(dks.into_par_iter().zip(dvs)).for_each(|((segment, dq), (dk, dv))| {
            let parts: Vec<_> = (0..heads.n_kv)
                .into_par_iter()
                .map(|kv| vectorized(|| backward_group(&input, &past, segment, kv)))
                .collect();
            for (kv, [part_q, part_k, part_v]) in parts.iter().enumerate() {
                scatter(dq, heads.query_width(), kv * heads.group_width(), part_q, heads.group_width());
                scatter(dk, heads.key_width(), kv * heads.dim, part_k, heads.dim);
                scatter(dv, heads.key_width(), kv * heads.dim, part_v, heads.dim);
            }
        });
        [tensor_f32(dq, q_shape), tensor_f32(dk, k_shape.clone()), tensor_f32(dv, k_shape)]
    }
}

#[derive(Clone, Copy)]
struct Heads {
    n: usize,
    n_kv: usize,
    /// Query heads that share a key head.
    group: usize,
    dim: usize,
}

impl Heads {
    fn new(q: &FlexTensor, k: &FlexTensor) -> Self {
        let (q, k) = (q.shape(), k.shape());
        assert!(q[1] % k[1] == 0 && q[2] == k[2], "query heads {q:?} do not match key heads {k:?}");
        Self { n: q[1], n_kv: k[1], group: q[1] / k[1], dim: q[2] }
    }

    fn query_width(&self) -> usize {
        self.n * self.dim
    }

    fn key_width(&self) -> usize {
        self.n_kv * self.dim
    }

    fn group_width(&self) -> usize {
        self.group * self.dim
    }
}

struct Input<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    heads: Heads,
    spec: AttentionSpec,
}

struct Past<'a> {
    out: &'a [f32],
    lse: &'a [f32],
    grad: &'a [f32],
}

/// A run of queries of one sequence and the keys that at least one of them sees.
struct Block {
    /// First query within the segment, and how many.
    start: usize,
    len: usize,
    /// Keys within the segment.
    low: usize,
    high: usize,
    /// Position of the first query.
    position: usize,
}

impl Block {
    fn all(segment: &Segment, spec: AttentionSpec, group: usize) -> impl Iterator<Item = Self> + use<> {
        let (step, first, n) = ((BLOCK_ROWS / group).max(1), segment.first_position(), segment.query_len);
        (0..n).step_by(step).map(move |start| {
            let (len, position) = (step.min(n - start), first + start);
            let low = spec.window.map_or(0, |w| (position + 1).saturating_sub(w));
            Self { start, len, low, high: position + len, position }
        })
    }

    fn n_keys(&self) -> usize {
        self.high - self.low
    }

    /// Keys that query `i` sees, counted from `low`.
    #[inline(always)]
    fn visible(&self, i: usize, spec: AttentionSpec) -> std::ops::Range<usize> {
        let position = self.position + i;
        let first = spec.window.map_or(0, |w| (position + 1).saturating_sub(w));
        first - self.low..position + 1 - self.low
    }
}

impl Input<'_> {
    /// The keys (or values) of a block for one key head, `[keys, dim]`.
    fn keys<'a>(&self, x: &'a [f32], segment: &Segment, block: &Block, kv: usize) -> Matrix<'a> {
        let width = self.heads.key_width();
        let start = (segment.key_start + block.low) * width + kv * self.heads.dim;
        Matrix::rows(&x[start..], block.n_keys(), self.heads.dim, width)
    }

    /// The rows of a block's queries for one key head, stacked `[len * group, dim]`, times `factor`.
    #[inline(always)]
    fn stack(&self, x: &[f32], segment: &Segment, block: &Block, kv: usize, factor: f32, to: &mut Vec<f32>) {
        to.clear();
        for i in 0..block.len {
            let row = segment.query_start + block.start + i;
            let start = row * self.heads.query_width() + kv * self.heads.group_width();
            to.extend(x[start..start + self.heads.group_width()].iter().map(|x| x * factor));
        }
    }
}

/// Output `[query_len, group * dim]` and log-sum-exp `[query_len, group]` of one key head's queries.
#[inline(always)]
fn forward_group(input: &Input<'_>, sinks: &[f32], segment: &Segment, kv: usize) -> (Vec<f32>, Vec<f32>) {
    let Heads { group, dim, .. } = input.heads;
    let mut out = vec![0.0; segment.query_len * group * dim];
    let mut lse = vec![0.0; segment.query_len * group];
    let (mut q, mut scores) = (Vec::new(), Vec::new());
    for block in Block::all(segment, input.spec, group) {
        let (n_rows, n_keys) = (block.len * group, block.n_keys());
        input.stack(input.q, segment, &block, kv, input.spec.scale, &mut q);
        scores.clear();
        scores.resize(n_rows * n_keys, 0.0);
        let keys = input.keys(input.k, segment, &block, kv);
        matmul(&mut scores, n_keys, Into::Overwrite, 1.0, Matrix::packed(&q, n_rows, dim), keys.t());
        for (row, scores) in scores.chunks_exact_mut(n_keys).enumerate() {
            let visible = block.visible(row / group, input.spec);
            let sink = sinks[kv * group + row % group];
            lse[block.start * group + row] = softmax_with_sink(scores, visible, sink);
        }
        let values = input.keys(input.v, segment, &block, kv);
        let out = &mut out[block.start * group * dim..][..n_rows * dim];
        matmul(out, dim, Into::Overwrite, 1.0, Matrix::packed(&scores, n_rows, n_keys), values);
    }
    (out, lse)
}

/// Turns scores into probabilities, zero outside `visible`; returns the logarithm of the denominator.
#[inline(always)]
fn softmax_with_sink(scores: &mut [f32], visible: std::ops::Range<usize>, sink: f32) -> f32 {
    scores[..visible.start].fill(0.0);
    scores[visible.end..].fill(0.0);
    let scores = &mut scores[visible];
    let shift = max(scores).max(sink);
    let sum = exp_sum(scores, shift) + exp(sink - shift);
    let inverse = 1.0 / sum;
    for p in scores.iter_mut() {
        *p *= inverse;
    }
    shift + sum.ln()
}

/// Gradients of one key head's queries, keys and values: `[query_len, group * dim]`, `[key_len, dim]` twice.
#[inline(always)]
fn backward_group(input: &Input<'_>, past: &Past<'_>, segment: &Segment, kv: usize) -> [Vec<f32>; 3] {
    let Heads { group, dim, n, .. } = input.heads;
    let mut dq = vec![0.0; segment.query_len * group * dim];
    let mut dk = vec![0.0; segment.key_len * dim];
    let mut dv = vec![0.0; segment.key_len * dim];
    let (mut q, mut out, mut grad) = (Vec::new(), Vec::new(), Vec::new());
    let (mut p, mut ds) = (Vec::new(), Vec::new());
    for block in Block::all(segment, input.spec, group) {
        let (n_rows, n_keys) = (block.len * group, block.n_keys());
        input.stack(input.q, segment, &block, kv, input.spec.scale, &mut q);
        input.stack(past.out, segment, &block, kv, 1.0, &mut out);
        input.stack(past.grad, segment, &block, kv, 1.0, &mut grad);
        for buffer in [&mut p, &mut ds] {
            buffer.clear();
            buffer.resize(n_rows * n_keys, 0.0);
        }
        let (q, grad) = (Matrix::packed(&q, n_rows, dim), &grad[..]);
        let keys = input.keys(input.k, segment, &block, kv);
        let values = input.keys(input.v, segment, &block, kv);
        matmul(&mut p, n_keys, Into::Overwrite, 1.0, q, keys.t());
        matmul(&mut ds, n_keys, Into::Overwrite, 1.0, Matrix::packed(grad, n_rows, dim), values.t());
        for (row, (p, ds)) in p.chunks_exact_mut(n_keys).zip(ds.chunks_exact_mut(n_keys)).enumerate() {
            let query = segment.query_start + block.start + row / group;
            let lse = past.lse[query * n + kv * group + row % group];
            let delta = dot(&out[row * dim..][..dim], &grad[row * dim..][..dim]);
            let visible = block.visible(row / group, input.spec);
            for hidden in [0..visible.start, visible.end..n_keys] {
                p[hidden.clone()].fill(0.0);
                ds[hidden].fill(0.0);
            }
            for (p, ds) in p[visible.clone()].iter_mut().zip(&mut ds[visible]) {
                *p = exp(*p - lse);
                *ds = *p * (*ds - delta);
            }
        }
        let (p, ds) = (Matrix::packed(&p, n_rows, n_keys), Matrix::packed(&ds, n_rows, n_keys));
        let here = &mut dq[block.start * group * dim..][..n_rows * dim];
        matmul(here, dim, Into::Overwrite, input.spec.scale, ds, keys);
        // `q` already carries the scale.
        matmul(&mut dk[block.low * dim..], dim, Into::Accumulate, 1.0, ds.t(), q);
        matmul(
            &mut dv[block.low * dim..],
            dim,
            Into::Accumulate,
            1.0,
            p.t(),
            Matrix::packed(grad, n_rows, dim),
        );
    }
    [dq, dk, dv]
}

/// Copies rows of `width` elements into rows of `to_width`, starting at column `column`.
fn scatter(to: &mut [f32], to_width: usize, column: usize, from: &[f32], width: usize) {
    for (to, from) in to.chunks_exact_mut(to_width).zip(from.chunks_exact(width)) {
        to[column..column + width].copy_from_slice(from);
    }
}
