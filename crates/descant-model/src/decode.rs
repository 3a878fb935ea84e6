//! Generation by the card's own decoder: tokens behind prompts that are in the cache.
//!
//! Where no decoder serves a model (the CPU, weights that stream, attention that is packed) the caller takes the path of
//! the separate operators; what is computed is the same up to rounding.

use burn::tensor::{DType, Tensor, TensorData};
use descant_kernels::{Decoder, STEP_ROWS, StepCache, StepModel, StepTable};

use crate::cache::KeyValueCache;
use crate::error::Result;
use crate::model::GptOss;
use crate::overlay::Overlay;
use crate::weights::Embedding;

impl GptOss {
    /// A decoder that goes on where `cache` ends, for so many sequences at once; `None` where none serves.
    ///
    /// # Errors
    /// The card has no room.
    pub(crate) fn decoder(
        &self,
        overlay: &dyn Overlay,
        cache: &KeyValueCache,
        rows: usize,
    ) -> Result<Option<Decoder>> {
        let layer = |(index, layer): (usize, &crate::weights::LayerWeights)| {
            Some((layer.whole.clone()?, overlay.pairs(index)?))
        };
        let layers: Option<Vec<_>> = self.layers().iter().enumerate().map(layer).collect();
        let Some(layers) = layers.filter(|_| rows <= STEP_ROWS && descant_kernels::is_cuda(self.device()))
        else {
            return Ok(None);
        };
        let (embedding, norm, head) = self.ends();
        let embedding = match embedding {
            Embedding::Here(table) => StepTable::Card(Tensor::clone(table)),
            Embedding::Host(table) => StepTable::Host(table.clone()),
        };
        let model = StepModel {
            layers: layers.iter().map(|(layer, pairs)| (layer, pairs.clone())).collect(),
            embedding,
            norm: norm.clone(),
            head: head.clone(),
            epsilon: self.config.rms_norm_eps,
        };
        let (capacity, half) = (cache.capacity(), self.config.head_dim / 2);
        let (cos, sin) = self.config.rope.table(self.config.head_dim, capacity);
        let table = |values: Vec<f32>| {
            Tensor::from_data(TensorData::new(values, [capacity, half]), (self.device(), DType::F32))
        };
        let cache = StepCache { layers: cache.layers(), capacity, angles: [table(cos), table(sin)] };
        Ok(Decoder::new(&model, cache, rows)?)
    }
}
