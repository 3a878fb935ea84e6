//! Attention in burn operations: one sequence after the other, all scores at once.

use burn::tensor::{Bool, Tensor, TensorData};

use super::segments::{Segment, Segments};
use super::spec::AttentionSpec;

/// See [`crate::attention()`].
pub fn attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    sinks: &Tensor<1>,
    spec: AttentionSpec,
    segments: &Segments,
) -> Tensor<3> {
    let outputs = segments
        .as_slice()
        .iter()
        .map(|segment| {
            let q = q.clone().narrow(0, segment.query_start, segment.query_len);
            let k = k.clone().narrow(0, segment.key_start, segment.key_len);
            let v = v.clone().narrow(0, segment.key_start, segment.key_len);
            one_sequence(q, k, v, sinks, spec, segment)
        })
        .collect();
    Tensor::cat(outputs, 0)
}

fn one_sequence(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    sinks: &Tensor<1>,
    spec: AttentionSpec,
    segment: &Segment,
) -> Tensor<3> {
    let [n_queries, n_heads, _] = q.dims();
    let [n_keys, n_kv, dim] = k.dims();
    let group = n_heads / n_kv;
    let per_head = |x: Tensor<3>| {
        x.unsqueeze_dim::<4>(2).repeat_dim(2, group).reshape([n_keys, n_heads, dim]).swap_dims(0, 1)
    };
    let scores = q.swap_dims(0, 1).matmul(per_head(k).swap_dims(1, 2)) * spec.scale;
    let hidden = hidden(spec, segment);
    let hidden = Tensor::<2, Bool>::from_data(TensorData::new(hidden, [n_queries, n_keys]), &scores.device());
    let scores = scores.mask_fill(hidden.unsqueeze::<3>().expand([n_heads, n_queries, n_keys]), -1e30);
    let sinks = sinks.clone().reshape([n_heads, 1, 1]).expand([n_heads, n_queries, 1]);
    let probabilities = burn::tensor::activation::softmax(Tensor::cat(vec![scores, sinks], 2), 2);
    probabilities.narrow(2, 0, n_keys).matmul(per_head(v)).swap_dims(0, 1)
}

/// For each query and key, whether the query does not see the key.
fn hidden(spec: AttentionSpec, segment: &Segment) -> Vec<bool> {
    let first = segment.first_position();
    (0..segment.query_len)
        .flat_map(|i| {
            let position = first + i;
            (0..segment.key_len)
                .map(move |key| key > position || spec.window.is_some_and(|w| position - key >= w))
        })
        .collect()
}
