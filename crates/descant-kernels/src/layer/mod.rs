//! A whole decoder layer as one operator, where a device has such a form: forward keeps little, backward runs the
//! parts of the layer again that it needs.
//!
//! Its definition is the layer put together from the other operators, as descant-model does it on every device;
//! this form computes the same with fewer passes over memory and without a node of the graph for each product.
//! How much of the forward is kept instead of computed again is the business of `memory`. There is no form for the CPU:
//! there the separate operators are as fast.

#[cfg(any(feature = "cuda", test))]
pub(crate) mod factors;
mod types;

cfg_select! {
    feature = "cuda" => {
        mod backward;
        mod call;
        mod experts;
        mod forward;
        mod fp8;
        mod frame;
        pub(crate) mod frozen;
        mod gradients;
        mod kernel;
        pub(crate) mod lora;
        mod node;
        mod operands;
        mod pairs;
        mod placed;
        pub(crate) mod prepared;
        mod thin;

        type Inner = std::sync::Arc<prepared::Prepared>;
        type Places = crate::memory::arena::Places;
        type Ticket = call::Ticket;
    }
    _ => {
        type Inner = std::convert::Infallible;
        type Places = Inner;
        type Ticket = Inner;
    }
}

use burn::tensor::{Int, Tensor};

use crate::DeviceError;
use crate::device::only_on_a_card;
use crate::memory::Workspace;
use crate::op::attention::Segments;
use crate::op::experts::ExpertForm;
use crate::site::{PerSite, SiteKind};
pub use types::{
    Angles, DenseWeight, LayerPairs, LayerPlace, LayerSpec, LayerTensors, LowRankPair, PairGradients,
    PlacedBatch,
};

/// A frozen layer, ready for one device's own form.
#[derive(Debug, Clone)]
pub struct DecoderLayer {
    inner: Inner,
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
        cfg_select! {
            feature = "cuda" => prepared::Prepared::new(tensors, spec, place, workspace)
                .map(|inner| Self { inner: Inner::new(inner) }),
            _ => {{
                let _ = (tensors, spec, place, workspace);
                None
            }}
        }
    }

    /// The layer on its card.
    #[cfg(feature = "cuda")]
    pub(crate) fn prepared(&self) -> &prepared::Prepared {
        &self.inner
    }

    /// Makes ready for the steps of a training that multiply with experts in these numbers, which its
    /// [`Claim::experts`](crate::Claim::experts) says: a step that goes [from place to place](Self::forward_placed) does
    /// so, and nothing else. Says which products stay in bf16, because eight bits do not hold their weights exactly.
    ///
    /// # Errors
    /// There are no such kernels for this device or these weights.
    pub fn prepare_experts(&self, experts: ExpertForm) -> Result<Vec<SiteKind>, DeviceError> {
        only_on_a_card!(self.inner, (experts), Ok(self.inner.prepare_experts(experts)?))
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
        only_on_a_card!(
            self.inner,
            (x, pairs, angles, segments),
            node::decoder_layer(&self.inner, x, pairs, angles, segments, None)
        )
    }

    /// The same, and which experts each token went to, largest logit first: `[tokens, k]`, i32.
    pub fn forward_noting(
        &self,
        x: Tensor<2>,
        pairs: &LayerPairs,
        angles: &Angles,
        segments: &Segments,
    ) -> (Tensor<2>, Tensor<2, Int>) {
        only_on_a_card!(self.inner, (x, pairs, angles, segments), {
            let chosen = self.inner.room_for_choice(segments.tokens());
            let y = node::decoder_layer(&self.inner, x, pairs, angles, segments, Some(chosen.clone()));
            (y, crate::cuda::tensor(chosen))
        })
    }

    /// Places for the inputs of all layers of a step's batches, in the memory that layers work in. What was claimed as
    /// [`together`](crate::Claim::together) says how many batches there is room for.
    ///
    /// `ranks` are the largest of the adapters of any layer.
    ///
    /// # Errors
    /// There is no room, under a limit or at all.
    pub fn places(&self, batches: &[&Segments], ranks: &PerSite<usize>) -> Result<StepPlaces, DeviceError> {
        only_on_a_card!(self.inner, (batches, ranks), Ok(StepPlaces(self.inner.places(batches, ranks)?)))
    }

    /// Puts a batch's stream to where the input of layer `index` lies; behind the last layer it is the gradient that
    /// the backward begins with.
    ///
    /// # Shapes
    /// `[tokens, hidden]`, bf16, in no graph
    pub fn put(&self, places: &StepPlaces, index: usize, batch: usize, x: Tensor<2>) {
        only_on_a_card!(self.inner, (places, index, batch, x), self.inner.put(&places.0, index, batch, x));
    }

    /// The stream that lies where the input of layer `index` does; behind the last layer it is what comes out.
    ///
    /// # Shapes
    /// `[tokens, hidden]`, bf16
    pub fn take(&self, places: &StepPlaces, index: usize, batch: usize, tokens: usize) -> Tensor<2> {
        only_on_a_card!(
            self.inner,
            (places, index, batch, tokens),
            self.inner.take(&places.0, index, batch, tokens)
        )
    }

    /// Takes a batch from this layer's place to the next one's. With `keep` what there is room for is kept for the
    /// backward.
    pub fn forward_placed(
        &self,
        places: &StepPlaces,
        pairs: &LayerPairs,
        batch: &PlacedBatch<'_>,
        keep: bool,
    ) -> KeptForward {
        only_on_a_card!(
            self.inner,
            (places, pairs, batch, keep),
            KeptForward(placed::layer_forward(&self.inner, &places.0, pairs, batch, keep))
        )
    }

    /// Takes the gradient that was [put](Self::put) behind the last layer from this layer's output to its input, and
    /// gives the gradients of the pairs. Layers are asked from the last to the first.
    pub fn backward_placed(
        &self,
        places: &StepPlaces,
        pairs: &LayerPairs,
        batch: &PlacedBatch<'_>,
        kept: KeptForward,
    ) -> PerSite<Option<PairGradients>> {
        only_on_a_card!(
            self.inner,
            (places, pairs, batch, kept),
            placed::layer_backward(&self.inner, &places.0, pairs, batch, kept.0)
        )
    }
}

/// Where the inputs of layers lie during a step. A model's layers have one at a time.
#[derive(Debug)]
pub struct StepPlaces(Places);

/// What a forward kept for its backward.
#[derive(Debug, Clone)]
pub struct KeptForward(Ticket);
