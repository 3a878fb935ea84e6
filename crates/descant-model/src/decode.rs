//! Steps of generation by the card's own decoder: tokens behind prompts that are in the cache.
//!
//! Where none serves a model (the CPU, attention that is packed, experts that are not, host memory that is not pinned) the caller takes the path of the
//! separate operators; what is computed is the same up to rounding.

use burn::tensor::{DType, Tensor, TensorData};
use descant_kernels::{
    Decoder, Drawn, FrozenWeight, PAGE_TOKENS, StepCache, StepChoice, StepModel, StepRow, StepTable,
};

use crate::cache::KeyValueCache;
use crate::capacity::{CacheSize, pages_for};
use crate::error::Result;
use crate::model::GptOss;
use crate::overlay::Overlay;
use crate::slots::Active;
use crate::weights::{Embedding, LayerWeights};

/// A decoder, and who takes part in its steps.
#[derive(Debug)]
pub(crate) struct CardSteps {
    decoder: Decoder,
    /// The last sequences that it was given, in the order of its rows.
    rows: Vec<Active>,
    choice: StepChoice,
}

impl CardSteps {
    /// One over a cache of this size whose longest sequence may come to have so many tokens; `None` where none serves,
    /// which is said once where a card is there.
    ///
    /// # Errors
    /// The card has no room.
    pub(crate) fn new(
        model: &GptOss,
        overlay: &dyn Overlay,
        cache: &KeyValueCache,
        size: CacheSize,
        longest: usize,
    ) -> Result<Option<Self>> {
        if !descant_kernels::is_cuda(model.device()) {
            return Ok(None);
        }
        match decoder(model, overlay, cache, size, longest)? {
            Ok(decoder) => Ok(Some(Self { decoder, rows: Vec::new(), choice: StepChoice::Likeliest })),
            Err(reason) => {
                let words = format!("replies are made by the separate operators, which is slower: {reason}");
                if model.said.is_new(&words) {
                    tracing::warn!("{words}");
                }
                Ok(None)
            }
        }
    }

    /// Begins anew: what was queued is of nobody.
    pub(crate) fn forget(&mut self) {
        self.rows.clear();
    }

    /// The next token of each of `ready`, or of those of them that a step had that was queued ahead.
    pub(crate) fn step(
        &mut self,
        ready: &[Active],
        row: impl Fn(&Active) -> StepRow,
        choice: StepChoice,
        ahead: bool,
    ) -> Result<Vec<(Active, Drawn)>> {
        if self.rows != ready || self.choice != choice {
            // What was queued ahead of sequences that are all gone is nobody's.
            if let Some(told) = self.queued(ready)?.filter(|told| !told.is_empty()) {
                return Ok(told);
            }
            self.set(ready, row)?;
            self.choice = choice;
        }
        let drawn = self.decoder.step(choice, ahead)?;
        Ok(self.rows.iter().copied().zip(drawn).collect())
    }

    /// The logits of each of `ready`, `[ready, vocabulary]`; the next tokens are the host's to tell.
    pub(crate) fn logits(&mut self, ready: &[Active], row: impl Fn(&Active) -> StepRow) -> Result<Tensor<2>> {
        self.set(ready, row)?;
        let logits = self.decoder.logits()?;
        self.rows.clear();
        Ok(logits)
    }

    fn set(&mut self, ready: &[Active], row: impl Fn(&Active) -> StepRow) -> Result<()> {
        self.decoder.set(&ready.iter().map(row).collect::<Vec<_>>())?;
        self.rows = ready.to_vec();
        Ok(())
    }

    fn queued(&mut self, ready: &[Active]) -> Result<Option<Vec<(Active, Drawn)>>> {
        let Some(drawn) = self.decoder.queued()? else { return Ok(None) };
        let told = self.rows.iter().copied().zip(drawn);
        Ok(Some(told.filter(|(active, _)| ready.contains(active)).collect()))
    }
}

/// Why weights on the host cannot be read by a decoder.
const NOT_PINNED: &str = "weights on the host are not pinned, so that the card does not see them";

/// A decoder, or why there is none.
fn decoder(
    model: &GptOss,
    overlay: &dyn Overlay,
    cache: &KeyValueCache,
    size: CacheSize,
    longest: usize,
) -> Result<std::result::Result<Decoder, &'static str>> {
    let layer = |(index, layer): (usize, &LayerWeights)| {
        let Some(whole) = layer.whole.clone() else {
            return Err("no kernel computes a layer of these sizes whole");
        };
        let Some(pairs) = overlay.pairs(index) else { return Err("the overlay is more than low-rank pairs") };
        Ok((whole, pairs))
    };
    let layers: std::result::Result<Vec<_>, _> = model.layers().iter().enumerate().map(layer).collect();
    let layers = match layers {
        Ok(layers) => layers,
        Err(reason) => return Ok(Err(reason)),
    };
    let streamed = model.layers().iter().find_map(|layer| match &layer.gate_up.weight {
        FrozenWeight::Streamed(matrix) => Some(matrix),
        _ => None,
    });
    if streamed.is_some_and(|matrix| !matrix.is_in_place()) {
        return Ok(Err(NOT_PINNED));
    }
    let (embedding, norm, head) = model.ends();
    let embedding = match embedding {
        Embedding::Here(table) => StepTable::Card(Tensor::clone(table)),
        Embedding::Host(table) if !table.is_in_place() => return Ok(Err(NOT_PINNED)),
        Embedding::Host(table) => StepTable::Host(table.clone()),
    };
    let of = StepModel {
        layers: layers.iter().map(|(layer, pairs)| (layer, pairs.clone())).collect(),
        embedding,
        norm: norm.clone(),
        head: head.clone(),
        epsilon: model.config.rms_norm_eps,
    };
    // A step may be queued behind a sequence's last token, as far as its pages go.
    let (positions, half) = (pages_for(longest) * PAGE_TOKENS, model.config.head_dim / 2);
    let (cos, sin) = model.config.rope.table(model.config.head_dim, positions);
    let table = |values: Vec<f32>| {
        Tensor::from_data(TensorData::new(values, [positions, half]), (model.device(), DType::F32))
    };
    let cache = StepCache { layers: cache.layers(), pages: size.pages, angles: [table(cos), table(sin)] };
    Ok(Decoder::new(&of, cache, size.rows)?)
}
