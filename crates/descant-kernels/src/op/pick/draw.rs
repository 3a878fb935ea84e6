//! A token at random: the definition that host and card compute to the bit.
//!
//! Every weight is an integer, `floor(2^40 · 2^x)` of `x = (value - largest) · log2(e) / temperature`, so that a sum
//! does not depend on its order, and a draw not on what computes it. Tokens are ordered from the largest value, ties to
//! the lower id. Each filter keeps a beginning of that order: top-k so many tokens and those that tie with the last,
//! top-p up to the token with which the sum of weights reaches its share of what top-k left, min-p all whose `x` is at
//! least its logarithm. Of all kept the shortest counts, and the token is chosen with which the running sum passes a
//! number below the sum of that, in proportion to the random number.
//!
//! A weight has the precision of f32, and those below 2^-40 of the largest are none: of 200,000 such tokens one would
//! have come once in 5,000,000 draws.

use std::borrow::Cow;
use std::f64::consts::LOG2_E;

use super::order::Order;
use super::weights::{GOLDEN, ONE, SHARES, mix, part, part_above, random, share, weight};
#[cfg(feature = "cuda")]
use crate::cuda::structures::DRAW_BYTES;

/// How the tokens of a sequence are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Of the random numbers, which depend on it and on the step.
    key: u64,
    /// In parts of `2^63`.
    top_p: u64,
    /// `log2(e) / temperature`; 0 takes the largest.
    factor: f32,
    /// The least `x`.
    least: f32,
    /// Divides positive logits of tokens that were seen, and multiplies negative ones; 1 for none.
    penalty: f32,
    top_k: u32,
}

impl Draw {
    /// Of settings in their ranges: temperature 0 takes the largest, `top_k` 0 all.
    pub fn new(temperature: f32, top_k: u32, top_p: f32, min_p: f32, penalty: f32) -> Self {
        let factor = if temperature == 0.0 { 0.0 } else { LOG2_E / f64::from(temperature) };
        Self {
            key: 0,
            top_p: share(top_p),
            factor: factor.min(f64::from(f32::MAX)) as f32,
            least: min_p.log2(),
            penalty,
            top_k,
        }
    }

    /// The same with the random numbers of a stream of a seed.
    #[must_use]
    pub fn with_stream(self, seed: u64, stream: u64) -> Self {
        Self { key: mix(seed ^ mix(stream.wrapping_add(GOLDEN))), ..self }
    }

    /// Whether the largest is taken.
    pub fn is_greedy(&self) -> bool {
        self.factor == 0.0
    }

    /// Whether logits depend on the tokens that were seen.
    pub fn penalizes(&self) -> bool {
        self.penalty.to_bits() != 1.0_f32.to_bits()
    }

    /// The token of a step, from logits that have the penalty.
    fn token(&self, values: &[f32], step: u32) -> u32 {
        let best = super::reference::best_token(values);
        if self.is_greedy() {
            return best as u32;
        }
        let exponent = |value: f32| (value - values[best]) * self.factor;
        let (mut all, mut likely) = (0_u64, 0_u64);
        for value in values {
            let x = exponent(*value);
            all += weight(x);
            likely += if x >= self.least { weight(x) } else { 0 };
        }
        let mut order = Order::new(values, |value| weight(exponent(value)));
        let few = match self.top_k as usize {
            k if k > 0 && k < values.len() => order.first(k),
            _ => all,
        };
        let likeliest =
            if self.top_p < 1 << SHARES { order.at(part_above(few, self.top_p) - 1).1 } else { few };
        let kept = few.min(likeliest).min(likely);
        order.at(part(kept, random(self.key, step))).0
    }
}

/// A row of logits from which a token is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DrawnRow<'a> {
    /// How.
    pub draw: Draw,
    /// Which of the sequence's random numbers.
    pub step: u32,
    /// The tokens that the penalty is for, in any order and number.
    pub seen: &'a [u32],
    /// Whether the probability of what is drawn is wanted.
    pub wants_probability: bool,
}

/// A token that was drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    /// `None` where a logit is not finite.
    pub id: Option<u32>,
    /// Its logit, and the largest, as the model gave them.
    logit: f32,
    largest: f32,
    /// The sum of the weights of all logits as the model gave them, where it is wanted; else 0.
    total: u64,
}

impl Drawn {
    /// Its logarithm of the probability in nats under softmax of the logits as the model gave them, where it was
    /// wanted.
    pub fn log_probability(&self) -> Option<f32> {
        let sum = self.total as f64 / (1_u64 << ONE) as f64;
        (self.total > 0).then(|| (f64::from(self.logit) - f64::from(self.largest) - sum.ln()) as f32)
    }

    /// Of what a card wrote where it took the likeliest: an id alone.
    #[cfg(feature = "cuda")]
    pub(crate) fn likeliest(bytes: &[u8]) -> Self {
        let id = u32::try_from(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).ok();
        Self { id, logit: f32::NAN, largest: f32::NAN, total: 0 }
    }

    /// What a card wrote (`struct Drawn` of `draw.cu`).
    #[cfg(feature = "cuda")]
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let total = u64::from(u32::from_le_bytes(word(16))) | u64::from(u32::from_le_bytes(word(20))) << 32;
        Self {
            id: u32::try_from(i32::from_le_bytes(word(0))).ok(),
            logit: f32::from_le_bytes(word(4)),
            largest: f32::from_le_bytes(word(8)),
            total,
        }
    }
}

impl DrawnRow<'_> {
    /// The token.
    ///
    /// # Shapes
    /// `logits` `[vocabulary]`, not empty
    pub fn draw(&self, logits: &[f32]) -> Drawn {
        let largest = logits[super::reference::best_token(logits)];
        let nothing = Drawn { id: None, logit: f32::NAN, largest, total: 0 };
        if logits.iter().any(|logit| !logit.is_finite()) {
            return nothing;
        }
        let id = self.draw.token(&self.penalized(logits), self.step);
        let sum = || logits.iter().map(|logit| weight((logit - largest) * LOG2_E as f32)).sum();
        let total = if self.wants_probability { sum() } else { 0 };
        Drawn { id: Some(id), logit: logits[id as usize], total, ..nothing }
    }

    fn penalized<'a>(&self, logits: &'a [f32]) -> Cow<'a, [f32]> {
        let penalty = self.draw.penalty;
        if !self.draw.penalizes() || self.seen.is_empty() {
            return Cow::Borrowed(logits);
        }
        let mut changed = logits.to_vec();
        for &id in self.seen {
            // From the untouched value, so that it counts once.
            let logit = logits[id as usize];
            changed[id as usize] = if logit > 0.0 { logit / penalty } else { logit * penalty };
        }
        Cow::Owned(changed)
    }

    /// As a card reads it (`struct Draw` of `draw.cu`).
    #[cfg(feature = "cuda")]
    pub(crate) fn bytes(&self) -> [u8; DRAW_BYTES] {
        let mut bytes = [0; DRAW_BYTES];
        bytes[..8].copy_from_slice(&self.draw.key.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.draw.top_p.to_le_bytes());
        let words = [
            self.draw.factor.to_bits(),
            self.draw.least.to_bits(),
            self.draw.penalty.to_bits(),
            self.draw.top_k,
            self.step,
            u32::from(self.wants_probability),
        ];
        for (to, word) in bytes[16..].chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// A bit a token that was seen, of a vocabulary of this size.
    #[cfg(feature = "cuda")]
    pub(crate) fn mask(&self, vocabulary: usize) -> Vec<u8> {
        let mut bytes = vec![0; mask_bytes(vocabulary)];
        for &id in self.seen {
            bytes[id as usize / 8] |= 1 << (id % 8);
        }
        bytes
    }
}

/// Bytes of a mask of seen tokens.
#[cfg(feature = "cuda")]
pub(crate) fn mask_bytes(vocabulary: usize) -> usize {
    vocabulary.div_ceil(32) * 4
}
