//! What a decoder is made of, and what it takes a step with, as its callers say it.

use burn::tensor::Tensor;

#[cfg(feature = "cuda")]
use super::split::PAGE_TOKENS;
use crate::layer::{DecoderLayer, LayerPairs};
use crate::op::pick::Draw;
#[cfg(feature = "cuda")]
use crate::op::pick::DrawnRow;
use crate::stream::HostTable;

/// Sequences up to which a step's dense products read each matrix straight into registers, and the step is recorded.
pub const THIN_ROWS: usize = 8;
/// Sequences up to which a decoder that has room for no more gives each the bits that it has alone.
pub const WIDE_ROWS: usize = 100;
/// Sequences up to which one with room for more pads its dense products to so many; beyond, to [`STEP_ROWS`].
pub const MANY_ROWS: usize = 128;
/// Most sequences of a step.
pub const STEP_ROWS: usize = 256;

/// Rows of the buffers of a decoder with room for so many sequences.
pub const fn step_rows(room: usize) -> usize {
    if room <= WIDE_ROWS {
        room
    } else if room <= MANY_ROWS {
        MANY_ROWS
    } else {
        STEP_ROWS
    }
}
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
    /// Keys and values of each layer, written in place. Of a layer with a window `[slots · window, key value width]`, a
    /// ring a slot: a position lies at its remainder. Of the others `[pages · PAGE_TOKENS, key value width]`.
    pub layers: Vec<[Tensor<2>; 2]>,
    /// Pages of all sequences.
    pub pages: usize,
    /// Cosines and sines by position, `[positions, head_dim / 2]`, f32.
    pub angles: [Tensor<2>; 2],
}

/// A sequence of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRow {
    /// Its ring in layers with a window.
    pub slot: usize,
    /// Its pages in the others, those of its first positions first; no page is another's.
    pub pages: Vec<u32>,
    /// Its last token, which is not in the cache yet.
    pub id: u32,
    /// Where that stands, from 0.
    pub position: usize,
    /// Whether the model's pairs take part.
    pub adapted: bool,
    /// How its next token is drawn, where steps draw.
    pub draw: StepDraw,
}

/// How a sequence's tokens are drawn in the steps that follow.
#[derive(Debug, Clone, PartialEq)]
pub struct StepDraw {
    /// With the random numbers of its stream.
    pub draw: Draw,
    /// Which of them is next.
    pub step: u32,
    /// Its tokens so far, where [`Draw::penalizes`].
    pub seen: Vec<u32>,
    /// Whether the probability of what is drawn is wanted.
    pub wants_probability: bool,
}

impl StepDraw {
    /// As the operator has it.
    #[cfg(feature = "cuda")]
    pub(super) fn row(&self) -> DrawnRow<'_> {
        let Self { draw, step, ref seen, wants_probability } = *self;
        DrawnRow { draw, step, seen, wants_probability }
    }
}

/// What becomes of the logits of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepChoice {
    /// The likeliest token is the next, ties to the lower id, and the host reads nothing else.
    Likeliest,
    /// The next token is drawn.
    Drawn,
    /// They are asked for.
    Logits,
}

impl StepRow {
    /// Whether its pages have room for its last token.
    #[cfg(feature = "cuda")]
    pub(super) fn has_room(&self) -> bool {
        self.position < self.pages.len() * PAGE_TOKENS
    }
}
