//! The attention operator for burn on a CUDA card.

use burn::backend::TensorMetadata as _;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::cuda::{Rows, Shape, forward};
use super::cuda_backward::{Backward, backward};
use super::node::{AttentionKernel, Saved};
use super::one_pass;
use super::segments::Segments;
use super::spec::AttentionSpec;
use super::table::Table;
use crate::cuda;

/// Sizes of tensors `[rows, heads, dim]`.
fn shape_of(q: &CubeTensor, k: &CubeTensor, spec: AttentionSpec) -> Shape {
    let [n_tokens, n_heads, head_dim] = q.shape().dims();
    let [_, n_kv, _] = k.shape().dims::<3>();
    Shape { n_tokens, n_heads, n_kv, head_dim, window: spec.window, scale: spec.scale }
}

impl Shape {
    /// Tensors of their own, without gaps.
    fn rows(&self, query: u64, key: u64, value: u64) -> Rows {
        let (query_stride, key_stride) = (self.n_heads * self.head_dim, self.n_kv * self.head_dim);
        Rows { query, key, value, query_stride, key_stride }
    }
}

impl AttentionKernel for CubeBackend {
    fn attention_forward(
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
        sinks: CubeTensor,
        spec: AttentionSpec,
        segments: Segments,
    ) -> Saved<Self> {
        let (q, k, v) = (cuda::contiguous(q), cuda::contiguous(k), cuda::contiguous(v));
        let sinks = cuda::floats(sinks);
        let shape = shape_of(&q, &k, spec);
        let out = cuda::empty(q.shape(), DType::BF16, &q.device);
        let lse = cuda::empty([shape.n_heads, shape.n_tokens], DType::F32, &q.device);
        let table = Table::of(&segments, &q.device);
        let handles = cuda::handles([&q, &k, &v, &sinks, &out, &lse, table.tensor()]);
        cuda::gpu_of(&q).enqueue(handles, move |run, p| {
            let stride = shape.n_heads * shape.head_dim;
            forward(run, &shape, &table.at(p[6]), shape.rows(p[0], p[1], p[2]), p[3], p[4], stride, p[5])
        });
        Saved { q, k, v, out, lse, spec, segments }
    }

    fn attention_backward(saved: Saved<Self>, grad: CubeTensor) -> [CubeTensor; 3] {
        let Saved { q, k, v, out, lse, spec, segments } = saved;
        let grad = cuda::contiguous(grad);
        let shape = shape_of(&q, &k, spec);
        assert!(
            segments.keys_are_disjoint_and_ordered(k.shape()[0]),
            "the backward of attention needs each sequence's keys beside the next one's"
        );
        let [dq, dk, dv] = [&q, &k, &v].map(|x| cuda::empty(x.shape(), DType::BF16, &x.device));
        let delta = cuda::empty(lse.shape(), DType::F32, &q.device);
        let group = shape.n_heads / shape.n_kv;
        let bytes = one_pass::scratch_bytes(shape.n_tokens, group, shape.n_kv, shape.head_dim);
        let sums = cuda::empty([bytes.div_ceil(4).max(1)], DType::F32, &q.device);
        let table = Table::of(&segments, &q.device);
        let handles =
            cuda::handles([&q, &k, &v, &out, &grad, &lse, &delta, &dq, &dk, &dv, table.tensor(), &sums]);
        cuda::gpu_of(&q).enqueue(handles, move |run, p| {
            let stride = shape.n_heads * shape.head_dim;
            let given = Backward { out: p[3], d_out: p[4], stride, lse: p[5], delta: p[6], sums: p[11] };
            let (rows, to) = (shape.rows(p[0], p[1], p[2]), shape.rows(p[7], p[8], p[9]));
            backward(run, &shape, &table.at(p[10]), rows, given, to)
        });
        [dq, dk, dv]
    }
}
