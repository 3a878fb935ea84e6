//! A whole decoder layer as one operator, where a device has such a form: forward keeps little, backward runs the
//! parts of the layer again that it needs.
//!
//! Its definition is the layer put together from the other operators, as descant-model does it on every device;
//! this form computes the same with fewer passes over memory and without a node of the graph for each product.
//! How much of the forward is kept instead of computed again is the business of `memory`. There is no form for the CPU:
//! there the separate operators are as fast.

#[cfg(feature = "cuda")]
mod backward;
#[cfg(feature = "cuda")]
mod call;
#[cfg(feature = "cuda")]
mod forward;
#[cfg(feature = "cuda")]
mod frame;
#[cfg(feature = "cuda")]
mod frozen;
#[cfg(feature = "cuda")]
mod kernel;
#[cfg(feature = "cuda")]
mod lora;
#[cfg(feature = "cuda")]
mod node;
#[cfg(feature = "cuda")]
mod operands;
#[cfg(feature = "cuda")]
mod pairs;
#[cfg(feature = "cuda")]
mod together;
mod types;

use burn::tensor::Tensor;

use crate::memory::Workspace;
use crate::op::attention::Segments;
use crate::site::PerSite;
pub use types::{Angles, LayerPairs, LayerPlace, LayerSpec, LayerTensors, LowRankPair, PairGradients};

/// A frozen layer, ready for one device's own form.
#[derive(Debug, Clone)]
pub struct DecoderLayer {
    #[cfg(feature = "cuda")]
    inner: std::sync::Arc<call::Prepared>,
    #[cfg(not(feature = "cuda"))]
    inner: std::convert::Infallible,
}

impl DecoderLayer {
    /// Prepares a layer that works in `workspace`, which the layers of a model share, or `None` where the tensors' device has no form of a whole layer or the weights are in a
    /// layout that it does not read.
    pub fn new(
        tensors: &LayerTensors,
        spec: LayerSpec,
        place: LayerPlace,
        workspace: &Workspace,
    ) -> Option<Self> {
        #[cfg(feature = "cuda")]
        return call::Prepared::new(tensors, spec, place, workspace)
            .map(|inner| Self { inner: std::sync::Arc::new(inner) });
        #[cfg(not(feature = "cuda"))]
        {
            let _ = (tensors, spec, place, workspace);
            None
        }
    }

    /// The layer's output for whole sequences.
    ///
    /// # Shapes
    /// `x` and the result `[tokens, hidden]`, bf16
    pub fn forward(
        &self,
        x: Tensor<2>,
        pairs: &LayerPairs,
        angles: &Angles,
        segments: &Segments,
    ) -> Tensor<2> {
        #[cfg(feature = "cuda")]
        return node::decoder_layer(&self.inner, x, pairs, angles, segments);
        #[cfg(not(feature = "cuda"))]
        {
            let _ = (x, pairs, angles, segments);
            match self.inner {}
        }
    }

    /// The layer's output for one of several batches that go through it before the next layer, outside of a graph. With
    /// `again` another one follows.
    ///
    /// # Shapes
    /// As [`forward`](Self::forward)
    ///
    /// # Panics
    /// If a tensor lies in a graph.
    pub fn forward_together(
        &self,
        x: Tensor<2>,
        pairs: &LayerPairs,
        batch: (&Angles, &Segments),
        again: bool,
    ) -> Tensor<2> {
        #[cfg(feature = "cuda")]
        return together::layer_forward(&self.inner, x, pairs, batch, again);
        #[cfg(not(feature = "cuda"))]
        {
            let _ = (x, pairs, batch, again);
            match self.inner {}
        }
    }

    /// The gradients of the input and of the pairs of such a batch, from its input and the gradient of its output.
    ///
    /// # Shapes
    /// `x`, `grad` and the first result `[tokens, hidden]`, bf16; the gradients of pairs as the pairs
    ///
    /// # Panics
    /// If a tensor lies in a graph.
    pub fn backward_together(
        &self,
        x: Tensor<2>,
        pairs: &LayerPairs,
        batch: (&Angles, &Segments),
        grad: Tensor<2>,
        again: bool,
    ) -> (Tensor<2>, PerSite<Option<PairGradients>>) {
        #[cfg(feature = "cuda")]
        return together::layer_backward(&self.inner, x, pairs, batch, grad, again);
        #[cfg(not(feature = "cuda"))]
        {
            let _ = (x, pairs, batch, grad, again);
            match self.inner {}
        }
    }
}
