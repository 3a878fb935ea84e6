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

/// The exponent of the largest weight.
const ONE: i32 = 40;
/// The scale of top-p.
const SHARES: u32 = 63;
/// Bits of a random number.
const BITS: u32 = 53;
/// Tokens that are sorted first.
const FIRST: usize = 128;
/// How many times as many are sorted next.
const TIMES: usize = 8;
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

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
            // Exact: a number of f32 up to 1 has no bit below 2^-63 that matters.
            top_p: ((f64::from(top_p) * (1_u64 << SHARES) as f64) as u64).max(1),
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
        let share = if self.top_p < 1 << SHARES { order.at(part_above(few, self.top_p) - 1).1 } else { few };
        let kept = few.min(share).min(likely);
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

/// Bytes of [`Drawn`] on a card.
#[cfg(feature = "cuda")]
pub(crate) const DRAWN_BYTES: usize = 24;
/// Bytes of a row's `struct Draw` on a card.
#[cfg(feature = "cuda")]
pub(crate) const DRAW_BYTES: usize = 40;

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

/// `floor(2^40 · 2^x)` for `x` up to 0; every operation is one of f32, so that a card has the same bits.
fn weight(x: f32) -> u64 {
    if x < -(ONE as f32) || x.is_nan() {
        return 0;
    }
    // 2^f for |f| <= 1/2, a polynomial (Cephes, exp2f); f is exact.
    let whole = x.round_ties_even();
    let f = x - whole;
    let mut p = 1.535_336_2e-4_f32;
    for c in [1.339_887_4e-3_f32, 9.618_437e-3, 5.550_332_5e-2, 2.402_264_8e-1, 6.931_472e-1, 1.0] {
        p = p * f + c;
    }
    (p * f32::from_bits(((whole as i32 + ONE + 127) as u32) << 23)) as u64
}

/// `floor(sum · random / 2^53)`
fn part(sum: u64, random: u64) -> u64 {
    ((u128::from(sum) * u128::from(random)) >> BITS) as u64
}

/// `ceil(sum · share / 2^63)`
fn part_above(sum: u64, share: u64) -> u64 {
    (u128::from(sum) * u128::from(share)).div_ceil(1 << SHARES) as u64
}

/// 53 bits that depend on nothing but key and step (SplitMix64's mixing, Steele et al. 2014).
fn random(key: u64, step: u32) -> u64 {
    mix(key ^ mix(u64::from(step).wrapping_add(GOLDEN))) >> (64 - BITS)
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Tokens from the largest value on, ties to the lower id, sorted as far as somebody asks: a vocabulary has 201,088 of
/// them, and a draw mostly ends among the first hundred.
struct Order {
    /// Key of the value, id, weight.
    all: Vec<(u32, u32, u64)>,
    sorted: usize,
}

impl Order {
    fn new(values: &[f32], weigh: impl Fn(f32) -> u64) -> Self {
        let token = |(id, value): (usize, &f32)| (descending(*value), id as u32, weigh(*value));
        Self { all: values.iter().enumerate().map(token).collect(), sorted: 0 }
    }

    /// The tokens in order from the first.
    fn get(&mut self, index: usize) -> Option<(u32, u32, u64)> {
        while index >= self.sorted && self.sorted < self.all.len() {
            let end = (self.sorted * TIMES).max(FIRST).min(self.all.len());
            let rest = &mut self.all[self.sorted..];
            let count = end - self.sorted;
            if count < rest.len() {
                rest.select_nth_unstable(count);
            }
            rest[..count].sort_unstable();
            self.sorted = end;
        }
        self.all.get(index).copied()
    }

    /// The sum of the first `count` and of those that tie with the last of them.
    fn first(&mut self, count: usize) -> u64 {
        let last = self.get(count - 1).map_or(0, |token| token.0);
        let mut sum = 0;
        for index in 0.. {
            match self.get(index) {
                Some((value, _, weight)) if value <= last => sum += weight,
                _ => break,
            }
        }
        sum
    }

    /// The first token with which the sum is above this, and the sum.
    fn at(&mut self, target: u64) -> (u32, u64) {
        let (mut sum, mut id) = (0, 0);
        for index in 0.. {
            let Some((_, token, weight)) = self.get(index) else { break };
            (sum, id) = (sum + weight, token);
            if sum > target {
                break;
            }
        }
        (id, sum)
    }
}

/// Orders numbers, the largest first; -0 counts as 0, so that a tie is a tie.
fn descending(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits();
    if bits >> 31 == 1 { bits } else { !(bits | 1 << 31) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_the_powers_of_two_to_the_precision_of_f32() {
        assert_eq!((weight(0.0), weight(-1.0), weight(-40.0), weight(-40.1)), (1 << 40, 1 << 39, 1, 0));
        assert_eq!((weight(f32::NEG_INFINITY), weight(f32::NAN)), (0, 0));
        for n in 0..20_000 {
            let x = -(n as f32) / 1000.0;
            let right = f64::from(x).exp2();
            let off = weight(x) as f64 / 2f64.powi(ONE) - right;
            assert!(off.abs() <= right * 3e-7 + 1e-12, "2^{x}: off by {off}");
        }
    }

    #[test]
    fn keys_descend_and_zeros_tie() {
        let values = [f32::MAX, 3.0, 1.0, 1e-40, 0.0, -1e-40, -1.0, -3.0, f32::MIN];
        assert!(values.windows(2).all(|pair| descending(pair[0]) < descending(pair[1])));
        assert_eq!(descending(-0.0), descending(0.0));
    }

    #[test]
    fn tokens_come_as_from_a_whole_sort_however_far_somebody_asks() {
        // Many equal ones, so that ties show.
        let values: Vec<f32> =
            (0..5000_u32).map(|id| (id.wrapping_mul(2_654_435_761) >> 22) as f32).collect();
        let mut sorted: Vec<(u32, u32)> =
            values.iter().enumerate().map(|(id, value)| (descending(*value), id as u32)).collect();
        sorted.sort_unstable();
        for asked in [0, 1, 127, 128, 129, 1024, 4999] {
            let mut order = Order::new(&values, |_| 1);
            let found: Vec<_> = (0..=asked).filter_map(|n| order.get(n)).map(|one| (one.0, one.1)).collect();
            assert_eq!(found, sorted[..=asked]);
            assert_eq!(order.get(5000), None);
            assert_eq!(order.at(asked as u64), (sorted[asked].1, asked as u64 + 1));
        }
    }

    #[test]
    fn shares_of_a_sum_are_exact() {
        assert_eq!(
            (part(10, 0), part(10, (1 << 53) - 1), part(u64::MAX >> 6, 1 << 52)),
            (0, 9, u64::MAX >> 7)
        );
        let p = |p: f32| Draw::new(1.0, 0, p, 0.0, 1.0).top_p;
        assert_eq!((part_above(10, p(0.5)), part_above(11, p(0.5)), part_above(7, p(1.0))), (5, 6, 7));
        assert_eq!(part_above(1 << 40, p(f32::MIN_POSITIVE)), 1, "one token is always kept");
    }
}
