//! The layers of a training step, one after the other, by hand: several batches may go through a layer before the next
//! one, and no graph over all layers is kept.
//!
//! Where weights stream from the host, a layer then crosses the bus once each way for all batches. Where a device
//! computes a layer as one operator, its inputs lie in the layers' own memory, so that what a step takes is what was
//! planned. What is computed is that of [`GptOss::hidden`] and of its graph, in the same order: the bits are the same.
//! The caller brings the gradients of what comes out, and sums those of the adapters.

use burn::tensor::{Gradients, Tensor};
use descant_kernels::{
    Angles, DecoderLayer, KeptForward, LayerPairs, LowRankPair, PerSite, PlacedBatch, Segments, SiteKind,
    StepPlaces,
};

use crate::batch::Batch;
use crate::error::Result;
use crate::model::{GptOss, Pass};
use crate::overlay::Overlay;

/// What all layers need of a batch beside its stream.
struct Lane {
    positions: Vec<usize>,
    angles: Angles,
    segments: Segments,
}

/// A pass over the layers and back.
pub struct Sweep<'a> {
    model: &'a GptOss,
    overlay: &'a dyn Overlay,
    lanes: Vec<Lane>,
    streams: Streams<'a>,
    /// See [`in_bf16`](Self::in_bf16).
    in_bf16: bool,
}

/// Where the inputs of layers lie.
enum Streams<'a> {
    /// In the layers' own memory.
    Placed { places: StepPlaces, layers: Vec<&'a DecoderLayer>, kept: Vec<Vec<KeptForward>> },
    /// In tensors: by layer and batch, what comes out of the last one behind them; there the gradients come to lie.
    Tensors(Vec<Vec<Tensor<2>>>),
}

impl GptOss {
    /// Whether a sweep of a single batch is as quick as a graph: where each layer is one operator.
    pub fn sweeps(&self) -> bool {
        self.layers().iter().all(|layer| layer.whole.is_some())
    }

    /// Takes batches to the input of the first layer. The workspace must know how many
    /// ([`Claim::together`](descant_kernels::Claim::together)).
    ///
    /// `overlay` are pairs alone ([`Overlay::pairs`]), which may lie in a graph.
    ///
    /// # Errors
    /// The device has no room.
    ///
    /// # Panics
    /// If the overlay is something else.
    pub fn sweep<'a>(&'a self, batches: &[&Batch], overlay: &'a dyn Overlay) -> Result<Sweep<'a>> {
        let lane = |batch: &&Batch| {
            let positions = batch.positions();
            Lane { angles: self.angles(&positions), positions, segments: batch.segments() }
        };
        let lanes: Vec<Lane> = batches.iter().map(lane).collect();
        let inputs = batches.iter().map(|batch| self.embed(batch.ids()));
        let whole: Option<Vec<&DecoderLayer>> =
            self.layers().iter().map(|layer| layer.whole.as_ref()).collect();
        let streams = match whole {
            Some(layers) => {
                let segments: Vec<&Segments> = lanes.iter().map(|lane| &lane.segments).collect();
                let places = layers[0].places(&segments, &largest_ranks(layers.len(), overlay))?;
                for (batch, x) in inputs.enumerate() {
                    layers[0].put(&places, 0, batch, x);
                }
                Streams::Placed { places, layers, kept: Vec::new() }
            }
            None => Streams::Tensors(vec![inputs.collect()]),
        };
        Ok(Sweep { model: self, overlay, lanes, streams, in_bf16: false })
    }
}

/// The pairs of a layer, which are all that a sweep adds there.
fn pairs_of(layer: usize, overlay: &dyn Overlay) -> LayerPairs {
    overlay.pairs(layer).expect("the overlay of a sweep is pairs alone")
}

/// The largest rank at each kind of site.
fn largest_ranks(layers: usize, overlay: &dyn Overlay) -> PerSite<usize> {
    let mut ranks = PerSite::from_fn(|_| 0);
    for pairs in (0..layers).map(|layer| pairs_of(layer, overlay)) {
        for (kind, pair) in pairs.iter() {
            let rank = pair.as_ref().map_or(0, |pair| pair.a.dims()[1]);
            ranks[kind] = ranks[kind].max(rank);
        }
    }
    ranks
}

impl Sweep<'_> {
    /// The same, which multiplies with experts in bf16 whatever the workspace is laid out for.
    #[must_use]
    pub fn in_bf16(self) -> Self {
        Self { in_bf16: true, ..self }
    }

    /// Takes all batches through all layers. Where one goes alone, layers keep for the backward what there is room for.
    pub fn forward(&mut self) {
        let last = self.lanes.len() - 1;
        for layer in 0..self.model.config.num_hidden_layers {
            let pairs = self.pairs(layer);
            match &mut self.streams {
                Streams::Placed { places, layers, kept } => {
                    let of = |(batch, lane): (usize, &Lane)| {
                        let batch = lane.placed(batch, batch < last, self.in_bf16);
                        layers[layer].forward_placed(places, &pairs.plain, &batch, last == 0)
                    };
                    kept.push(self.lanes.iter().enumerate().map(of).collect());
                }
                Streams::Tensors(streams) => {
                    let inputs = streams.last().expect("the input of the first layer is there");
                    let of = |(lane, x): (&Lane, &Tensor<2>)| {
                        plain(lane.through(self.model, layer, x.clone(), self.overlay))
                    };
                    let outputs = self.lanes.iter().zip(inputs).map(of).collect();
                    streams.push(outputs);
                }
            }
        }
    }

    /// What comes out of the last layer for a batch, before the last norm; in no graph.
    ///
    /// # Shapes
    /// `[tokens, hidden]`
    pub fn output(&self, batch: usize) -> Tensor<2> {
        match &self.streams {
            Streams::Placed { places, layers, .. } => {
                let tokens = self.lanes[batch].segments.tokens();
                layers[0].take(places, layers.len(), batch, tokens)
            }
            Streams::Tensors(streams) => streams.last().expect("it went forward")[batch].clone(),
        }
    }

    /// The gradient of [`output`](Self::output), which is not asked for again.
    pub fn put_gradient(&mut self, batch: usize, grad: Tensor<2>) {
        match &mut self.streams {
            Streams::Placed { places, layers, .. } => layers[0].put(places, layers.len(), batch, grad),
            Streams::Tensors(streams) => streams.last_mut().expect("it went forward")[batch] = grad,
        }
    }

    /// Takes the gradient of a batch from a layer's output to its input, and gives those of the pairs there: A and B of
    /// each, in the order of the sites. Layers are asked from the last to the first, each for the batches in order.
    pub fn backward(&mut self, layer: usize, batch: usize) -> Vec<Tensor<3>> {
        let pairs = self.pairs(layer);
        let (lane, again) = (&self.lanes[batch], batch + 1 < self.lanes.len());
        match &mut self.streams {
            Streams::Placed { places, layers, kept } => {
                let kept = kept[layer][batch].clone();
                let gradients = layers[layer].backward_placed(
                    places,
                    &pairs.plain,
                    &lane.placed(batch, again, self.in_bf16),
                    kept,
                );
                let pairs = gradients.iter().filter_map(|(_, pair)| pair.clone());
                pairs.flat_map(|pair| [pair.a, pair.b]).collect()
            }
            Streams::Tensors(streams) => {
                let gradients = streams.last().expect("it went forward");
                let x = Tensor::from_inner(streams[layer][batch].clone()).require_grad();
                let y = lane.through(self.model, layer, x.clone(), self.overlay);
                // The product with the gradient has it as its own gradient, to the bit.
                let mut found = (y * Tensor::from_inner(gradients[batch].clone())).sum().backward();
                let dx = x.grad_remove(&mut found).expect("a layer passes its input on");
                streams.last_mut().expect("it went forward")[batch] = dx;
                pairs
                    .in_graph()
                    .flat_map(|pair| [&pair.a, &pair.b])
                    .map(|t| gradient_of(t, &mut found))
                    .collect()
            }
        }
    }

    fn pairs(&self, layer: usize) -> Pairs {
        let given = pairs_of(layer, self.overlay);
        let plain = given.map(|pair| {
            let LowRankPair { a, b, scaling } = pair.clone()?;
            Some(LowRankPair { a: plain(a), b: plain(b), scaling })
        });
        Pairs { given, plain }
    }
}

/// A layer's pairs as they were given, which may be in a graph, and in none.
struct Pairs {
    given: LayerPairs,
    plain: LayerPairs,
}

impl Pairs {
    fn in_graph(&self) -> impl Iterator<Item = &LowRankPair> {
        SiteKind::ALL.into_iter().filter_map(|kind| self.given[kind].as_ref())
    }
}

impl Lane {
    fn placed(&self, batch: usize, again: bool, in_bf16: bool) -> PlacedBatch<'_> {
        PlacedBatch { batch, angles: &self.angles, segments: &self.segments, again, in_bf16 }
    }

    fn through(&self, model: &GptOss, layer: usize, x: Tensor<2>, overlay: &dyn Overlay) -> Tensor<2> {
        let (positions, segments) = (&self.positions, self.segments.clone());
        let mut pass = Pass { ids: &[], positions, segments, cache: None, is_apart: false, chosen: None };
        model.separate(layer, x, &self.angles, &mut pass, overlay)
    }
}

/// The tensor outside of a graph.
fn plain<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.device().is_autodiff() { tensor.inner() } else { tensor }
}

/// What a backward pass found for a tensor: zeros where nothing reached it.
pub fn gradient_of(tensor: &Tensor<3>, grads: &mut Gradients) -> Tensor<3> {
    tensor.grad_remove(grads).unwrap_or_else(|| tensor.clone().inner().zeros_like())
}
