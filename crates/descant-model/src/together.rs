//! Layer by layer, for callers that take several batches through a layer before the next one.
//!
//! Where weights stream from the host, a layer then crosses the bus once for all of them. What is computed is that of
//! [`GptOss::hidden`], in the same order, so that the bits are the same; the caller keeps the inputs of layers and
//! sums gradients.

use burn::tensor::Tensor;
use descant_kernels::{Angles, PairGradients, PerSite, Segments};

use crate::batch::Batch;
use crate::model::{GptOss, Pass};
use crate::overlay::Overlay;

/// What all layers need of a batch beside its stream.
#[derive(Debug, Clone)]
pub struct Lane {
    positions: Vec<usize>,
    angles: Angles,
    segments: Segments,
}

/// The gradient of a layer's input, and those of the pairs in it.
pub type LayerGradients = (Tensor<2>, PerSite<Option<PairGradients>>);

impl GptOss {
    /// The input of the first layer, and what the layers need beside it.
    ///
    /// # Shapes
    /// `[tokens, hidden]`
    pub fn enter(&self, batch: &Batch) -> (Tensor<2>, Lane) {
        let positions = batch.positions();
        let angles = self.angles(&positions);
        (self.embed(batch.ids()), Lane { positions, angles, segments: batch.segments() })
    }

    /// The output of a layer. With `again` another batch goes through it next.
    ///
    /// # Shapes
    /// `x` and the result `[tokens, hidden]`
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn through_layer(
        &self,
        index: usize,
        x: Tensor<2>,
        lane: &Lane,
        overlay: &dyn Overlay,
        again: bool,
    ) -> Tensor<2> {
        if let (Some(whole), Some(pairs)) = (&self.layer(index).whole, overlay.pairs(index)) {
            return whole.forward_together(x, &pairs, (&lane.angles, &lane.segments), again);
        }
        let Lane { positions, angles, segments } = lane;
        let mut pass = Pass { ids: &[], positions, segments: segments.clone(), cache: None };
        self.separate(index, x, angles, &mut pass, overlay)
    }

    /// The gradients of a layer from its input and the gradient of its output, where this device computes it as one
    /// operator: else nothing, and the graph has to find them.
    ///
    /// # Shapes
    /// `x`, `grad` and the first result `[tokens, hidden]`
    ///
    /// # Panics
    /// If there is no such layer, or a tensor lies in a graph.
    pub fn back_through_layer(
        &self,
        index: usize,
        x: &Tensor<2>,
        lane: &Lane,
        overlay: &dyn Overlay,
        grad: &Tensor<2>,
        again: bool,
    ) -> Option<LayerGradients> {
        let whole = self.layer(index).whole.as_ref()?;
        let pairs = overlay.pairs(index)?;
        let batch = (&lane.angles, &lane.segments);
        Some(whole.backward_together(x.clone(), &pairs, batch, grad.clone(), again))
    }
}
