//! From settings of sampling to a draw, which is the operator's (`draw.rs` of descant-kernels), on every device the same.

use descant_kernels::reference::best_token;
use descant_kernels::{Draw, DrawnRow};

use crate::sample::Sampling;

impl Sampling {
    /// How the tokens of a request's `stream` are drawn.
    pub fn draw(&self, stream: u64) -> Draw {
        let Self { temperature, top_k, top_p, min_p, repetition_penalty, seed } = *self;
        Draw::new(temperature, top_k, top_p, min_p, repetition_penalty).with_stream(seed, stream)
    }

    /// The token of a request's `stream` at `step`. `seen` as for [`probabilities`](Self::probabilities), and read only
    /// where the penalty is not 1. Where a logit is not finite, the largest.
    ///
    /// It is the first token, from the likeliest on, with which the running sum of probabilities passes a number in
    /// [0, 1) that depends on seed, stream and step alone.
    ///
    /// # Shapes
    /// `logits` `[vocabulary]`, not empty
    pub fn choose(&self, logits: &[f32], seen: &[u32], stream: u64, step: u32) -> u32 {
        let row = DrawnRow { draw: self.draw(stream), step, seen, wants_probability: false };
        row.draw(logits).id.unwrap_or_else(|| best_token(logits) as u32)
    }
}
