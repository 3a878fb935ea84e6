//! The key-value cache of generation: for each sequence a run of rows that its tokens fill.

use burn::tensor::{DType, Device, Int, Tensor};
use descant_kernels::{Segment, Segments, write_rows};

use crate::config::Config;

/// Keys and values of all layers, `[slots * capacity, kv width]` each.
#[derive(Debug)]
pub(crate) struct KeyValueCache {
    layers: Vec<Option<[Tensor<2>; 2]>>,
    n_kv: usize,
    dim: usize,
    /// Tokens a sequence may have.
    capacity: usize,
    /// Tokens each sequence has.
    lengths: Vec<usize>,
}

impl KeyValueCache {
    /// Room for `n_slots` sequences of at most `capacity` tokens.
    pub(crate) fn new(config: &Config, n_slots: usize, capacity: usize, device: &Device) -> Self {
        let shape = [n_slots * capacity, config.key_value_width()];
        // The type that activations have there.
        let dtype = if descant_kernels::is_cpu(device) { DType::F32 } else { DType::BF16 };
        let empty = || Tensor::<2>::zeros(shape, (device, dtype));
        Self {
            layers: (0..config.num_hidden_layers).map(|_| Some([empty(), empty()])).collect(),
            n_kv: config.num_key_value_heads,
            dim: config.head_dim,
            capacity,
            lengths: vec![0; n_slots],
        }
    }

    /// Tokens that a sequence may have.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Tokens that a sequence has.
    pub(crate) fn length(&self, slot: usize) -> usize {
        self.lengths[slot]
    }

    /// Keys and values of all layers, for a decoder that writes them in place.
    pub(crate) fn layers(&self) -> Vec<[Tensor<2>; 2]> {
        self.layers.iter().map(|layer| layer.clone().expect("nobody is extending it")).collect()
    }

    /// Makes room for `counts` new tokens of the sequences in `slots`: the new tokens' positions, their rows, and
    /// how they attend.
    pub(crate) fn reserve(&mut self, slots: &[usize], counts: &[usize]) -> (Vec<usize>, Vec<i32>, Segments) {
        let (mut positions, mut rows, mut segments) = (Vec::new(), Vec::new(), Vec::new());
        for (&slot, &count) in slots.iter().zip(counts) {
            let (start, key_start) = (self.lengths[slot], slot * self.capacity);
            self.lengths[slot] += count;
            assert!(self.lengths[slot] <= self.capacity, "the cache was made too small");
            let query_start = positions.len();
            segments.push(Segment { query_start, query_len: count, key_start, key_len: start + count });
            positions.extend(start..start + count);
            rows.extend((key_start + start..key_start + start + count).map(|row| row as i32));
        }
        (positions, rows, Segments::new(segments))
    }

    /// Writes a layer's new keys and values and returns all of them, `[rows, kv heads, dim]`.
    pub(crate) fn extend(
        &mut self,
        layer: usize,
        rows: &Tensor<1, Int>,
        k: Tensor<3>,
        v: Tensor<3>,
    ) -> (Tensor<3>, Tensor<3>) {
        let n = k.dims()[0];
        // Taken out, so that the write finds itself the only owner and works in place.
        let [keys, values] = self.layers[layer].take().expect("put back below");
        let flat = |x: Tensor<3>| x.reshape([n, self.n_kv * self.dim]);
        let keys = write_rows(keys, rows, flat(k));
        let values = write_rows(values, rows, flat(v));
        let shape = [keys.dims()[0], self.n_kv, self.dim];
        self.layers[layer] = Some([keys.clone(), values.clone()]);
        (keys.reshape(shape), values.reshape(shape))
    }
}
