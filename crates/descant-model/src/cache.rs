//! The key-value cache of generation.
//!
//! Layers that see everything keep a sequence in pages, the others the last tokens of their window in a ring: a position
//! lies at its remainder. What attends to them gets keys in the order of positions: as they are just computed where a
//! sequence begins, where they lie where that is one run of rows, else gathered.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use descant_kernels::{PAGE_TOKENS, Segments, write_rows, zeros};

use crate::capacity::{CacheSize, pages_for};
use crate::config::Config;
use crate::pages::Pages;

mod rows;

use rows::{New, Plan, Read, paged, ringed};

/// Keys and values of all layers, and who is where.
#[derive(Debug)]
pub(crate) struct KeyValueCache {
    layers: Vec<Option<[Tensor<2>; 2]>>,
    n_kv: usize,
    dim: usize,
    window: Option<usize>,
    /// Which layers have it.
    ringed: Vec<bool>,
    device: Device,
    pages: Pages,
    slots: Vec<Option<Held>>,
}

/// What a slot's sequence has.
#[derive(Debug)]
struct Held {
    pages: Vec<u32>,
    /// Tokens in the cache.
    length: usize,
}

impl KeyValueCache {
    pub(crate) fn new(config: &Config, size: CacheSize, device: &Device) -> Self {
        // The type that activations have there.
        let dtype = if descant_kernels::is_cpu(device) { DType::F32 } else { DType::BF16 };
        let layer = |layer| {
            let shape = [size.rows(config, layer), config.key_value_width()];
            // Rows without gaps, so that whoever writes in place writes the same memory.
            let empty = || zeros(shape, dtype, device);
            Some([empty(), empty()])
        };
        Self {
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            n_kv: config.num_key_value_heads,
            dim: config.head_dim,
            window: (0..config.num_hidden_layers).find_map(|layer| config.window(layer)),
            ringed: (0..config.num_hidden_layers).map(|layer| config.window(layer).is_some()).collect(),
            device: device.clone(),
            pages: Pages::new(size.pages),
            slots: (0..size.slots).map(|_| None).collect(),
        }
    }

    /// Begins a sequence that may come to have so many tokens, in a slot that nobody has; whether there is room.
    pub(crate) fn begin(&mut self, slot: usize, tokens: usize) -> bool {
        assert!(self.slots[slot].is_none(), "the slot is taken");
        let Some(pages) = self.pages.take(pages_for(tokens)) else { return false };
        self.slots[slot] = Some(Held { pages, length: 0 });
        true
    }

    /// Ends a slot's sequence.
    pub(crate) fn end(&mut self, slot: usize) {
        if let Some(held) = self.slots[slot].take() {
            self.pages.give(&held.pages);
        }
    }

    /// Tokens that a sequence has.
    pub(crate) fn length(&self, slot: usize) -> usize {
        self.held(slot).length
    }

    /// Its pages.
    pub(crate) fn pages(&self, slot: usize) -> &[u32] {
        &self.held(slot).pages
    }

    /// Whether no sequence has anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    fn held(&self, slot: usize) -> &Held {
        self.slots[slot].as_ref().expect("a sequence was begun there")
    }

    /// What a slot's rings have now. Pages need no copy: what comes later is written behind.
    pub(crate) fn rings(&self, slot: usize) -> Rings {
        let Some(window) = self.window else { return Rings { rows: None, layers: Vec::new() } };
        let rows = self.indices((slot * window..(slot + 1) * window).map(|row| row as i32).collect());
        let copy = |layer: &Option<[Tensor<2>; 2]>| {
            let layer = layer.as_ref().expect("nobody is extending it");
            layer.clone().map(|rows_of| rows_of.select(0, rows.clone()))
        };
        let ringed = self.layers.iter().zip(&self.ringed).map(|(layer, is)| is.then(|| copy(layer)));
        Rings { layers: ringed.collect(), rows: Some(rows) }
    }

    /// Takes a sequence back to when it had so many tokens, which was when its rings were these.
    pub(crate) fn go_back(&mut self, slot: usize, length: usize, rings: &Rings) {
        let held = self.slots[slot].as_mut().expect("a sequence was begun there");
        assert!(length <= held.length, "it never had more");
        held.length = length;
        let Some(rows) = &rings.rows else { return };
        for (layer, ring) in self.layers.iter_mut().zip(&rings.layers) {
            let Some([keys, values]) = ring.clone() else { continue };
            let [all_keys, all_values] = layer.take().expect("put back below");
            *layer = Some([write_rows(all_keys, rows, keys), write_rows(all_values, rows, values)]);
        }
    }

    /// Takes note of tokens that a decoder wrote.
    pub(crate) fn advance(&mut self, slot: usize, tokens: usize) {
        let held = self.slots[slot].as_mut().expect("a sequence was begun there");
        held.length += tokens;
        assert!(held.length <= held.pages.len() * PAGE_TOKENS, "a sequence has outgrown its pages");
    }

    /// Keys and values of all layers, for a decoder that writes them in place.
    pub(crate) fn layers(&self) -> Vec<[Tensor<2>; 2]> {
        self.layers.iter().map(|layer| layer.clone().expect("nobody is extending it")).collect()
    }

    /// Makes room for `counts` new tokens of the sequences in `slots`.
    pub(crate) fn extend(&mut self, slots: &[usize], counts: &[usize]) -> NewRows {
        let news: Vec<New> = slots
            .iter()
            .zip(counts)
            .map(|(&slot, &count)| New { slot, start: self.length(slot), count })
            .collect();
        let all = self.lane(paged(&news, |slot| self.pages(slot)));
        let window = self.window.map(|window| self.lane(ringed(&news, window)));
        for new in &news {
            self.advance(new.slot, new.count);
        }
        NewRows { positions: news.iter().flat_map(New::positions).collect(), all, window }
    }

    fn indices(&self, values: Vec<i32>) -> Tensor<1, Int> {
        let n = values.len();
        Tensor::from_data(TensorData::new(values, [n]), (&self.device, DType::I32))
    }

    fn lane(&self, plan: Plan) -> Lane {
        let indices = |values| self.indices(values);
        Lane {
            rows: indices(plan.rows),
            written: plan.written.map(indices),
            read: match plan.read {
                Read::New => Read::New,
                Read::InPlace => Read::InPlace,
                Read::Gathered { before, order } => {
                    Read::Gathered { before: indices(before), order: indices(order) }
                }
            },
            segments: plan.segments,
        }
    }

    /// Writes a layer's new keys and values, `[tokens, kv heads, dim]`, and gives those that are attended to, as
    /// [`NewRows::segments`] says.
    pub(crate) fn write(
        &mut self,
        layer: usize,
        lane: &Lane,
        k: Tensor<3>,
        v: Tensor<3>,
    ) -> (Tensor<3>, Tensor<3>) {
        let width = self.n_kv * self.dim;
        let n = k.dims()[0];
        // Taken out, so that the write finds itself the only owner and works in place.
        let [keys, values] = self.layers[layer].take().expect("put back below");
        let put = |cache: Tensor<2>, new: Tensor<3>| {
            let new = new.reshape([n, width]);
            let before = match &lane.read {
                Read::Gathered { before, .. } => Some(cache.clone().select(0, before.clone())),
                Read::New | Read::InPlace => None,
            };
            let kept = match &lane.written {
                Some(written) => new.clone().select(0, written.clone()),
                None => new.clone(),
            };
            let cache = write_rows(cache, &lane.rows, kept);
            let read = match &lane.read {
                Read::New => new,
                Read::InPlace => cache.clone(),
                Read::Gathered { order, .. } => {
                    let before = before.expect("it was gathered above");
                    Tensor::cat(vec![before, new], 0).select(0, order.clone())
                }
            };
            let rows = read.dims()[0];
            (cache, read.reshape([rows, self.n_kv, self.dim]))
        };
        let ((keys, k), (values, v)) = (put(keys, k), put(values, v));
        self.layers[layer] = Some([keys, values]);
        (k, v)
    }
}

/// A copy of what a slot has in layers with a window.
#[derive(Debug)]
pub(crate) struct Rings {
    rows: Option<Tensor<1, Int>>,
    layers: Vec<Option<[Tensor<2>; 2]>>,
}

/// New tokens of a pass, and where they go.
#[derive(Debug)]
pub(crate) struct NewRows {
    pub(crate) positions: Vec<usize>,
    all: Lane,
    window: Option<Lane>,
}

impl NewRows {
    /// How a layer writes and attends.
    pub(crate) fn lane(&self, window: Option<usize>) -> &Lane {
        match &self.window {
            Some(lane) if window.is_some() => lane,
            _ => &self.all,
        }
    }
}

/// How one kind of layer writes new tokens and attends to what is there.
#[derive(Debug)]
pub(crate) struct Lane {
    rows: Tensor<1, Int>,
    /// Which of the new tokens are written; all without.
    written: Option<Tensor<1, Int>>,
    read: Read<Tensor<1, Int>>,
    pub(crate) segments: Segments,
}
