//! The forward pass of gpt-oss.
//!
//! Activations are `[tokens, features]` over all sequences of a batch. One function computes a layer, whether the
//! sequences are whole (training, scoring) or continue from a key-value cache (generation). Where a device computes
//! a whole layer as one operator, whole sequences take that way; it is the same function, and tests hold them equal.

use std::path::Path;
use std::sync::Mutex;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use descant_kernels::{
    Angles, AttentionSpec, ExpertForm, FrozenWeight, Groups, Keep, LogitsRoom, Segments, SiteKind, Workspace,
    attention, combine_experts, compile_ahead, divergences, expert_weights, from_host, gather_rows, linear,
    rms_norm, rotary, route, select_rows, swiglu, take_tokens, token_losses, wants_rows_in_order,
};

use crate::batch::Batch;
use crate::cache::{KeyValueCache, NewRows};
use crate::config::Config;
use crate::error::Result;
use crate::overlay::Overlay;
use crate::placement::Placement;
use crate::said::Said;
use crate::site::Site;
use crate::weights::{Embedding, Formats, LayerWeights, Linear, Weights};

/// A frozen gpt-oss.
#[derive(Debug)]
pub struct GptOss {
    /// Its architecture.
    pub config: Config,
    device: Device,
    weights: Weights,
    workspace: Workspace,
    /// Whether products of packed experts want the rows of tokens copied in their order.
    rows_in_order: bool,
    /// Cosines and sines of positions from 0 on the device, grown when a longer sequence comes.
    angles: Mutex<Option<Angles>>,
    /// Warnings that need not be repeated.
    pub(crate) said: Said,
}

/// Tokens of one forward pass, and their positions.
pub(crate) struct Pass<'a> {
    pub(crate) ids: &'a [u32],
    pub(crate) positions: &'a [usize],
    pub(crate) segments: Segments,
    /// The cache to read and extend, and where each token goes in it.
    pub(crate) cache: Option<(&'a mut KeyValueCache, &'a NewRows)>,
    /// Whether a sequence's bits must not depend on what else is in the pass.
    pub(crate) is_apart: bool,
    /// Which experts each token of a layer went to, layer by layer, where somebody wants to know: `[tokens, k]`.
    pub(crate) chosen: Option<Vec<Tensor<2, Int>>>,
}

impl<'a> Pass<'a> {
    /// Of whole sequences, at these positions.
    fn whole(batch: &'a Batch, positions: &'a [usize]) -> Self {
        let segments = batch.segments();
        Self { ids: batch.ids(), positions, segments, cache: None, is_apart: false, chosen: None }
    }

    fn groups(&self, of: Groups) -> Groups {
        if self.is_apart { of.apart() } else { of }
    }
}

impl GptOss {
    /// Loads a model directory: `config.json` and the safetensors shards.
    ///
    /// # Errors
    /// Anything missing, extra, misshapen, mistyped or not supported, by file and tensor.
    pub fn load(dir: &Path, device: &Device) -> Result<Self> {
        Self::load_placed(dir, device, Placement::default())
    }

    /// The same with a part of the weights on the host, where a card has no room for all of them.
    ///
    /// # Errors
    /// As [`load`](Self::load), and where the host has no such memory to pin or the device is not a card.
    pub fn load_placed(dir: &Path, device: &Device, placement: Placement) -> Result<Self> {
        Self::load_within(dir, device, placement, None)
    }

    /// The same within a limit of the process's memory on a card, in bytes, which the model keeps.
    ///
    /// # Errors
    /// As [`load_placed`](Self::load_placed), and where the limit leaves no room for the weights.
    pub fn load_within(
        dir: &Path,
        device: &Device,
        placement: Placement,
        limit: Option<u64>,
    ) -> Result<Self> {
        let device = device.clone().inner();
        let config = Config::from_dir(dir)?.as_stored(dir)?;
        let group = config.num_attention_heads / config.num_key_value_heads;
        compile_ahead(&device, config.head_dim, group, config.packing);
        let workspace = Workspace::default();
        workspace.set(limit, Keep::default());
        workspace.hold_limit(&device)?;
        let weights = Weights::load(dir, &config, &device, &workspace, placement)?;
        for note in weights.formats.notes() {
            tracing::warn!("{note}");
        }
        let rows_in_order = config.has_packed_experts() && wants_rows_in_order(&device);
        Ok(Self {
            config,
            device,
            weights,
            workspace,
            rows_in_order,
            angles: Mutex::default(),
            said: Said::default(),
        })
    }

    /// Where the weights lie; a plain device, without a graph.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// For measurements: weights on the host come as over a bus of so many bytes a second.
    pub fn slow_bus(&self, bytes_per_second: f64) {
        self.workspace.slow_bus(bytes_per_second);
        let streamed = self.weights.layers.iter().find_map(|layer| match &layer.gate_up.weight {
            FrozenWeight::Streamed(matrix) => Some(matrix),
            _ => None,
        });
        if let Some(matrix) = streamed {
            matrix.slow_down(bytes_per_second);
        }
    }

    /// In which formats the weights came.
    pub fn formats(&self) -> &Formats {
        &self.weights.formats
    }

    /// What the layers may use of the device's memory, and what they work in.
    pub fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// Makes ready for sweeps ([`sweep`](Self::sweep)) that multiply with experts in these numbers; everything else is
    /// in bf16 always. Says which products are in bf16 there too, because those numbers do not hold their weights exactly;
    /// `None` where the device has no layers that sweeps go through as one operator.
    ///
    /// # Errors
    /// There are no such kernels for this device or these weights.
    pub fn prepare_experts(&self, experts: ExpertForm) -> Result<Option<Vec<Site>>> {
        let mut in_bf16 = Vec::new();
        for (index, layer) in self.weights.layers.iter().enumerate() {
            let Some(whole) = &layer.whole else { return Ok(None) };
            let kinds = whole.prepare_experts(experts)?;
            in_bf16.extend(kinds.into_iter().map(|kind| Site { layer: index, kind }));
        }
        Ok(Some(in_bf16))
    }

    /// Final hidden states of whole sequences, after the last norm: `[tokens, hidden]`.
    pub fn hidden(&self, batch: &Batch, overlay: &dyn Overlay) -> Tensor<2> {
        let positions = batch.positions();
        self.forward(&mut Pass::whole(batch, &positions), overlay)
    }

    /// Which experts each token of whole sequences goes to, layer by layer: `[tokens, k]`, i32.
    pub fn chosen_experts(&self, batch: &Batch, overlay: &dyn Overlay) -> Vec<Tensor<2, Int>> {
        let positions = batch.positions();
        let mut pass = Pass { chosen: Some(Vec::new()), ..Pass::whole(batch, &positions) };
        drop(self.forward(&mut pass, overlay));
        pass.chosen.unwrap_or_default()
    }

    /// Logits of hidden states: `[rows, hidden]` to `[rows, vocabulary]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let head = FrozenWeight::Dense(self.weights.head.clone().unsqueeze());
        linear(hidden, &head, None, &Groups::One)
    }

    /// Loss in nats of predicting `targets[i]` from row `rows[i]` of the hidden states: `[rows]`.
    ///
    /// # Panics
    /// If a target is outside the vocabulary or the lengths differ.
    pub fn token_losses(&self, hidden: Tensor<2>, rows: &[usize], targets: &[u32]) -> Tensor<1> {
        assert_eq!(rows.len(), targets.len());
        assert!(
            targets.iter().all(|&t| (t as usize) < self.config.vocab_size),
            "target outside the vocabulary"
        );
        let sizes = self.config.layer_sizes();
        let room = LogitsRoom::within(&self.workspace, &sizes, hidden.dims()[0], self.rows_in_order);
        let targets = self.indices(targets.iter().map(|&t| t as i32).collect());
        token_losses(select_rows(hidden, rows), &self.weights.head, &targets, &room)
    }

    /// The divergence of the next token's probabilities by `other` from those by `one`, of each row of these hidden states,
    /// which lie in no graph: `[rows, hidden]` both.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn divergences(&self, one: &Tensor<2>, other: &Tensor<2>) -> Result<Vec<f32>> {
        let sizes = self.config.layer_sizes();
        let room = LogitsRoom::within(&self.workspace, &sizes, one.dims()[0], self.rows_in_order);
        Ok(divergences(one, other, &self.weights.head, &room)?)
    }

    /// An i32 index tensor on the model's device.
    pub(crate) fn indices(&self, values: Vec<i32>) -> Tensor<1, Int> {
        let n = values.len();
        Tensor::from_data(TensorData::new(values, [n]), (&self.device, DType::I32))
    }

    /// Final hidden states of a pass, after the last norm.
    pub(crate) fn forward(&self, pass: &mut Pass<'_>, overlay: &dyn Overlay) -> Tensor<2> {
        let angles = self.angles(pass.positions);
        let mut x = self.embed(pass.ids);
        for (index, layer) in self.weights.layers.iter().enumerate() {
            if let (Some(whole), None) = (&layer.whole, &pass.cache)
                && let Some(pairs) = overlay.pairs(index)
            {
                x = if let Some(all) = &mut pass.chosen {
                    let (y, chosen) = whole.forward_noting(x, &pairs, &angles, &pass.segments);
                    all.push(chosen);
                    y
                } else {
                    whole.forward(x, &pairs, &angles, &pass.segments)
                };
                continue;
            }
            x = self.separate(index, x, &angles, pass, overlay);
        }
        self.last_norm(x)
    }

    /// The embedding, the last norm's weight and the head.
    pub(crate) fn ends(&self) -> (&Embedding, &Tensor<1>, &Tensor<2>) {
        (&self.weights.embedding, &self.weights.norm, &self.weights.head)
    }

    /// The residual stream before the first layer.
    pub(crate) fn embed(&self, ids: &[u32]) -> Tensor<2> {
        self.weights.embedding.rows(ids, |ids| self.indices(ids))
    }

    /// The layers' weights.
    pub(crate) fn layers(&self) -> &[LayerWeights] {
        &self.weights.layers
    }

    /// A layer put together from the separate operators.
    pub(crate) fn separate(
        &self,
        index: usize,
        x: Tensor<2>,
        angles: &Angles,
        pass: &mut Pass<'_>,
        overlay: &dyn Overlay,
    ) -> Tensor<2> {
        let layer = &self.layers()[index];
        let place = Place { config: &self.config, layer, index, overlay };
        let normed = rms_norm(x.clone(), &layer.input_norm, self.config.rms_norm_eps);
        let x = x + place.attend(normed, angles, pass);
        let normed = rms_norm(x.clone(), &layer.post_norm, self.config.rms_norm_eps);
        x + place.mix(normed, pass)
    }

    /// Final hidden states from what comes out of the last layer.
    ///
    /// # Shapes
    /// `[tokens, hidden]` to the same
    pub fn last_norm(&self, x: Tensor<2>) -> Tensor<2> {
        rms_norm(x, &self.weights.norm, self.config.rms_norm_eps)
    }

    /// Cosines and sines of these positions, each `[tokens, head_dim / 2]`.
    pub(crate) fn angles(&self, positions: &[usize]) -> Angles {
        let needed = positions.iter().max().map_or(0, |p| p + 1);
        let mut table = self.angles.lock().expect("no thread panics while it holds the table");
        let table = match &*table {
            Some(table) if table.cos.dims()[0] >= needed => table,
            _ => table.insert(self.angle_table(needed.next_power_of_two())),
        };
        Angles { cos: gather_rows(&table.cos, positions), sin: gather_rows(&table.sin, positions) }
    }

    /// Those of positions from 0 to below `count`.
    fn angle_table(&self, count: usize) -> Angles {
        let (cos, sin) = self.config.rope.table(self.config.head_dim, count);
        let on_device = |values| from_host(values, [count, self.config.head_dim / 2], &self.device);
        Angles { cos: on_device(cos), sin: on_device(sin) }
    }
}

/// A layer at its place in the model.
struct Place<'a> {
    config: &'a Config,
    layer: &'a LayerWeights,
    index: usize,
    overlay: &'a dyn Overlay,
}

impl Place<'_> {
    /// The product at a site and what the overlay adds there.
    fn project(&self, kind: SiteKind, of: &Linear, x: Tensor<2>, groups: &Groups) -> Tensor<2> {
        let delta = self.overlay.delta(Site { layer: self.index, kind }, &x, groups);
        let y = linear(x, &of.weight, Some(&of.bias), groups);
        match delta {
            Some(delta) => y + delta,
            None => y,
        }
    }

    /// What attention adds to the residual stream.
    fn attend(&self, x: Tensor<2>, Angles { cos, sin }: &Angles, pass: &mut Pass<'_>) -> Tensor<2> {
        let config = self.config;
        let n_tokens = x.dims()[0];
        let (n_heads, n_kv, dim) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
        let one = pass.groups(Groups::One);
        let q = self.project(SiteKind::Query, &self.layer.query, x.clone(), &one);
        let k = self.project(SiteKind::Key, &self.layer.key, x.clone(), &one);
        let v = self.project(SiteKind::Value, &self.layer.value, x, &one);
        let q = rotary(q.reshape([n_tokens, n_heads, dim]), cos, sin);
        let mut k = rotary(k.reshape([n_tokens, n_kv, dim]), cos, sin);
        let mut v = v.reshape([n_tokens, n_kv, dim]);
        let window = config.window(self.index);
        let mut segments = &pass.segments;
        if let Some((cache, rows)) = &mut pass.cache {
            let lane = rows.lane(window);
            (k, v) = cache.write(self.index, lane, k, v);
            segments = &lane.segments;
        }
        let spec = AttentionSpec { window, scale: (dim as f32).sqrt().recip() };
        let out = attention(q, k, v, &self.layer.sinks, spec, segments);
        self.project(SiteKind::Output, &self.layer.output, out.reshape([n_tokens, n_heads * dim]), &one)
    }

    /// What the experts add to the residual stream.
    fn mix(&self, x: Tensor<2>, pass: &mut Pass<'_>) -> Tensor<2> {
        let one = pass.groups(Groups::One);
        let logits = self.project(SiteKind::Router, &self.layer.router, x.clone(), &one);
        let routing = route(&logits, self.config.num_experts_per_tok);
        self.overlay.routed(self.index, &logits, &routing);
        if let Some(chosen) = &mut pass.chosen {
            chosen.push(routing.experts.clone());
        }
        let weights = expert_weights(logits, &routing);
        let groups = pass.groups(routing.groups());
        let taken = take_tokens(x, &routing);
        let gate_up = self.project(SiteKind::GateUp, &self.layer.gate_up, taken, &groups);
        let inner = swiglu(gate_up, self.config.swiglu_limit);
        let out = self.project(SiteKind::Down, &self.layer.down, inner, &groups);
        combine_experts(out, weights, &routing)
    }
}
