//! A step of generation on a card as few kernels, recorded once as a graph and replayed without work of the host.
//!
//! ```text
//! ids ─ embed ─ [thin: norm, q k v ─ place: bias, rotary, cache ─ attend ─ thin: output ─ route ─ gate_up ─ down ─ combine]
//!                └────────────────────────────── a layer ───────────────────────────────┘
//!     ─ norm ─ thin: logits ─ the largest ─ ids, positions + 1
//! ```
//!
//! Ids, positions and the rows of the cache lie on the card, so that a graph has no parameters; the host reads ids behind
//! it. Up to [`THIN_ROWS`] sequences take kernels of our own, in which a sequence's result does not depend on the others;
//! more take cuBLASLt's products. Adapters are a part of the same kernels, at every site.
//!
//! Experts that lie on the host are read there, those that are chosen.
//! What it does not do: prompts go through the model's other path, and fill the cache; attention that is packed, and experts
//! that are not, are left to that path too.

#[cfg(feature = "cuda")]
mod bound;
#[cfg(feature = "cuda")]
mod buffers;
#[cfg(feature = "cuda")]
mod experts;
#[cfg(feature = "cuda")]
mod machine;
#[cfg(feature = "cuda")]
mod step;

use burn::tensor::Tensor;

use crate::DeviceError;
use crate::layer::{DecoderLayer, LayerPairs};
use crate::stream::HostTable;

/// Sequences up to which a step is made of kernels that read each matrix once and do not mix rows.
pub const THIN_ROWS: usize = 8;
/// Most sequences of a step.
pub const STEP_ROWS: usize = 256;
/// Steps that may be queued before the first of them was read.
pub const STEPS_AHEAD: usize = 2;

/// What a step reads of a model.
#[derive(Debug)]
pub struct StepModel<'a> {
    /// Of each layer, with what is added there.
    pub layers: Vec<(&'a DecoderLayer, LayerPairs)>,
    /// `[vocabulary, hidden]`
    pub embedding: StepTable,
    /// The last norm's weight, `[hidden]`.
    pub norm: Tensor<1>,
    /// `[vocabulary, hidden]`
    pub head: Tensor<2>,
    /// Added to the mean square in the last norm.
    pub epsilon: f64,
}

/// A table of bf16 rows that a step reads some of.
#[derive(Debug, Clone)]
#[cfg_attr(
    feature = "cuda",
    expect(clippy::large_enum_variant, reason = "one a model, and a box would only hide handles")
)]
pub enum StepTable {
    /// On the card.
    Card(Tensor<2>),
    /// On the host.
    Host(HostTable),
}

/// Where a step finds keys and values, and angles.
#[derive(Debug)]
pub struct StepCache {
    /// Keys and values of each layer, `[slots · capacity, key value width]`. Written in place.
    pub layers: Vec<[Tensor<2>; 2]>,
    /// Tokens of a slot.
    pub capacity: usize,
    /// Cosines and sines by position, `[capacity, head_dim / 2]`, f32.
    pub angles: [Tensor<2>; 2],
}

/// A sequence of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepRow {
    /// Its place in the cache.
    pub slot: usize,
    /// Its last token, which is not in the cache yet.
    pub id: u32,
    /// Where that stands, from 0.
    pub position: usize,
}

/// See the head of the module.
#[derive(Debug)]
pub struct Decoder(
    #[cfg(feature = "cuda")] machine::Machine,
    #[cfg(not(feature = "cuda"))] std::convert::Infallible,
);

impl Decoder {
    /// One for at most so many sequences at once; `None` where no kernel serves the model as it lies, or it lies on no
    /// card.
    ///
    /// # Errors
    /// The card has no room, or the driver refuses.
    pub fn new(model: &StepModel<'_>, cache: StepCache, rows: usize) -> Result<Option<Self>, DeviceError> {
        #[cfg(feature = "cuda")]
        return Ok(machine::Machine::new(model, cache, rows)?.map(Self));
        #[cfg(not(feature = "cuda"))]
        {
            let _ = (model, cache, rows);
            Ok(None)
        }
    }

    /// The sequences of the steps that follow. What was queued of others is forgotten.
    ///
    /// # Errors
    /// The device failed.
    pub fn set(&mut self, rows: &[StepRow]) -> Result<(), DeviceError> {
        #[cfg(feature = "cuda")]
        return Ok(self.0.set(rows)?);
        #[cfg(not(feature = "cuda"))]
        {
            let _ = rows;
            match self.0 {}
        }
    }

    /// Takes all sequences a token further, and gives the likeliest token of each, ties to the lower id. Steps may be
    /// queued ahead, for as many tokens as the sequences have room for.
    ///
    /// # Errors
    /// The device failed.
    pub fn step(&mut self) -> Result<Vec<u32>, DeviceError> {
        #[cfg(feature = "cuda")]
        return Ok(self.0.step()?);
        #[cfg(not(feature = "cuda"))]
        match self.0 {}
    }

    /// Takes all sequences a token further, and gives the logits that follow, `[rows, vocabulary]`; the next ids are
    /// [set](Self::set) by the caller.
    ///
    /// # Errors
    /// The device failed.
    pub fn logits(&mut self) -> Result<Tensor<2>, DeviceError> {
        #[cfg(feature = "cuda")]
        return Ok(self.0.logits()?);
        #[cfg(not(feature = "cuda"))]
        match self.0 {}
    }
}
