//! A layer within a training step, outside of burn's graph: input and output lie in places of the layers' own memory, so
//! that no pool decides how much room they take, and the backward is asked for by hand.
//!
//! The operations are those of the graph's node, in the same order, so that the bits are the same. Several batches may go
//! through a layer before the next one: weights that stream cross the bus once for all of them.

use std::sync::Arc;

use burn::backend::TensorMetadata as _;
use burn::tensor::{DType, Tensor};
use burn_cubecl::tensor::CubeTensor;

use super::call::{Call, Ticket, Turn};
use super::kernel::compact;
use super::operands::{Factors, SiteFactors, Source};
use super::prepared::Prepared;
use super::types::{LayerPairs, PairGradients, PlacedBatch};
use crate::cuda::{CudaError, contiguous, empty, primitive, tensor};
use crate::memory::arena::Places;
use crate::op::attention::Segments;
use crate::site::{Paths, PerSite};

impl Prepared {
    /// Lays memory out for a step, so that it need not be done between two layers, and says where inputs go.
    pub(super) fn places(&self, batches: &[&Segments], ranks: &PerSite<usize>) -> Result<Places, CudaError> {
        let tokens = batches.iter().map(|segments| segments.tokens()).max().unwrap_or(0);
        let longest = batches.iter().map(|segments| segments.longest()).max().unwrap_or(0);
        let need = self.need(Paths::new(ranks), tokens, longest);
        let places = self.workspace.turn().places(&self.gpu, &need)?;
        if !places.holds(batches.len(), tokens, self.sizes.hidden) {
            let what = format!("{} batches go together, fewer were claimed", batches.len());
            return Err(CudaError::Workspace(what));
        }
        Ok(places)
    }

    /// Copies a batch's stream to where the input of a layer lies.
    pub(super) fn put(&self, places: &Places, layer: usize, batch: usize, x: Tensor<2>) {
        let x = contiguous(on_card(x));
        let bytes = x.shape().num_elements() * DType::BF16.size();
        let (to, memory, hosted) = (places.address(layer, batch), places.memory(), places.hosted());
        self.gpu.enqueue(vec![x.handle.clone()], move |run, from| {
            let copy =
                || run.stage("copy the stream", 0.0, 2.0 * bytes as f64, || run.copy(to, from[0], bytes));
            let Some(hosted) = &hosted else { return copy() };
            hosted.enter(run, layer, batch)?;
            copy()?;
            hosted.wrote(run, memory.address(), layer, batch, bytes)
        });
    }

    /// The stream that lies where the input of a layer does.
    pub(super) fn take(&self, places: &Places, layer: usize, batch: usize, tokens: usize) -> Tensor<2> {
        let out = empty([tokens, self.sizes.hidden], DType::BF16, &self.device());
        let bytes = out.shape().num_elements() * DType::BF16.size();
        let (from, memory) = (places.address(layer, batch), places.memory());
        self.gpu.enqueue(vec![out.handle.clone()], move |run, to| {
            let _held = &memory;
            run.stage("copy the stream", 0.0, 2.0 * bytes as f64, || run.copy(to[0], from, bytes))
        });
        tensor(out)
    }
}

/// From a layer's input to the next one's. With `keep` also what the backward need not compute again.
pub(super) fn layer_forward(
    layer: &Arc<Prepared>,
    places: &Places,
    pairs: &LayerPairs,
    batch: &PlacedBatch<'_>,
    keep: bool,
) -> Ticket {
    let (call, index) = (call(layer, places, pairs, batch), layer.place.index);
    let at = |index| Source::Address(places.address(index, batch.batch));
    call.forward(&factors(pairs), batch.segments.tokens(), at(index), at(index + 1), keep)
}

/// Takes the gradient that lies where the output of the last layer was from this layer's output to its input.
pub(super) fn layer_backward(
    layer: &Arc<Prepared>,
    places: &Places,
    pairs: &LayerPairs,
    batch: &PlacedBatch<'_>,
    ticket: Ticket,
) -> PerSite<Option<PairGradients>> {
    let (call, index) = (call(layer, places, pairs, batch), layer.place.index);
    let at = |index| Source::Address(places.address(index, batch.batch));
    let grad = || at(layer.place.windows.len());
    let tokens = batch.segments.tokens();
    let gradients = call.backward(&factors(pairs), tokens, at(index), grad(), grad(), ticket);
    gradients.map(|pair| {
        let Factors { a, b } = pair.clone()?;
        Some(PairGradients { a: tensor(a), b: tensor(b) })
    })
}

fn call(layer: &Arc<Prepared>, places: &Places, pairs: &LayerPairs, batch: &PlacedBatch<'_>) -> Call {
    let (memory, hosted) = (places.memory(), places.hosted());
    let PlacedBatch { batch: number, again, in_bf16, .. } = *batch;
    let turn = Turn::Placed { memory, hosted, batch: number, again, in_bf16 };
    Call::new(layer, pairs, batch.angles, batch.segments, turn)
}

fn on_card<const D: usize>(tensor: Tensor<D>) -> CubeTensor {
    primitive(tensor).expect("what goes through a layer lies where the layer lies, outside of a graph")
}

fn factors(pairs: &LayerPairs) -> SiteFactors<CubeTensor> {
    compact(&pairs.map(|pair| {
        let pair = pair.as_ref()?;
        Some(Factors { a: on_card(pair.a.clone()), b: on_card(pair.b.clone()) })
    }))
}
