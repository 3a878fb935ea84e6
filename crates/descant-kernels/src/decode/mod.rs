//! A step of generation on a card as few kernels, recorded once as a graph and replayed without work of the host.
//!
//! ```text
//! ids ─ embed ─ [thin: norm, q k v ─ place: bias, rotary, cache ─ attend ─ thin: output ─ route ─ gate_up ─ down ─ combine]
//!                └────────────────────────────── a layer ───────────────────────────────┘
//!     ─ norm ─ thin: logits ─ the largest, or one at random ─ ids, positions + 1
//! ```
//!
//! Ids, positions and the rows of the cache lie on the card, so that a graph has no parameters; the host reads ids behind
//! it. A sequence's result does not depend on the others: dense products have a kernel for up to [`THIN_ROWS`] sequences
//! and one for more, and both add in one order (`order.cuh`). Only a decoder with room for more than [`WIDE_ROWS`] adds in
//! another, which its room alone says (`dense.rs`, `experts.rs`). Adapters are a part of the same kernels, at every site.
//!
//! Which ids end a reply the host knows, which reads a step behind the card: a sequence that ends takes part in one step too
//! many, and nobody reads what that gives. To know it on the card would save 0.3 % of a reply of 300 tokens, and the rest
//! of that step would be as long: weights are read for the others, or the next prompt has to wait for one step of 1.5 ms.
//!
//! Experts that lie on the host are read there, those that are chosen.
//! What it does not do: prompts go through the model's other path, and fill the cache; attention that is packed, and experts
//! that are not, are left to that path too.

pub(crate) mod split;
mod types;

cfg_select! {
    feature = "cuda" => {
        mod bound;
        mod buffers;
        mod dense;
        mod experts;
        mod machine;
        mod step;

        type Inner = machine::Machine;
    }
    _ => {
        type Inner = std::convert::Infallible;
    }
}

use burn::tensor::Tensor;

use crate::DeviceError;
use crate::device::only_on_a_card;
use crate::op::pick::Drawn;

pub use split::{PAGE_TOKENS, STEP_KEYS};
pub use types::{
    MANY_ROWS, STEP_ROWS, STEPS_AHEAD, StepCache, StepChoice, StepDraw, StepModel, StepRow, StepTable,
    THIN_ROWS, WIDE_ROWS, step_rows,
};

/// See the head of the module.
#[derive(Debug)]
pub struct Decoder(Inner);

impl Decoder {
    /// One with room for so many sequences at once; where no kernel serves the model as it lies, why. Of any room up to
    /// [`WIDE_ROWS`] a sequence gets the same bits, of any up to [`MANY_ROWS`], and of any beyond.
    ///
    /// # Errors
    /// The card has no room, or the driver refuses.
    pub fn new(
        model: &StepModel<'_>,
        cache: StepCache,
        rows: usize,
    ) -> Result<Result<Self, &'static str>, DeviceError> {
        cfg_select! {
            feature = "cuda" => Ok(Inner::new(model, cache, rows)?.map(Self)),
            _ => {{
                let _ = (model, cache, rows);
                Ok(Err("this build has no support for cards"))
            }}
        }
    }

    /// The sequences of the steps that follow. What was queued of others is forgotten.
    ///
    /// # Errors
    /// The device failed.
    pub fn set(&mut self, rows: &[StepRow]) -> Result<(), DeviceError> {
        only_on_a_card!(self.0, (rows), Ok(self.0.set(rows)?))
    }

    /// Takes all sequences a token further, and gives it. With `ahead` the step behind it is queued too where all sequences
    /// have room for it: the card works while the host reads.
    ///
    /// # Errors
    /// The device failed.
    pub fn step(&mut self, choice: StepChoice, ahead: bool) -> Result<Vec<Drawn>, DeviceError> {
        only_on_a_card!(self.0, (choice, ahead), Ok(self.0.step(choice, ahead)?))
    }

    /// What a step gave that was queued ahead, if there is one; to be asked for before other sequences are
    /// [set](Self::set).
    ///
    /// # Errors
    /// The device failed.
    pub fn queued(&mut self) -> Result<Option<Vec<Drawn>>, DeviceError> {
        only_on_a_card!(self.0, (), Ok(self.0.queued()?))
    }

    /// Takes all sequences a token further, and gives the logits that follow, `[rows, vocabulary]`; the next ids are
    /// [set](Self::set) by the caller.
    ///
    /// # Errors
    /// The device failed.
    pub fn logits(&mut self) -> Result<Tensor<2>, DeviceError> {
        only_on_a_card!(self.0, (), Ok(self.0.logits()?))
    }
}
