//! Drawing a token without sorting a whole vocabulary.
//!
//! Every filter of [`Sampling`] keeps the first so many tokens of their order by likelihood, so tokens are sorted as far
//! as somebody asks: a vocabulary has 201,088 of them, and a draw mostly ends among the first hundred.

use std::borrow::Cow;

use descant_kernels::reference::best_token;

use crate::sample::Sampling;

/// Tokens that are sorted first.
const FIRST: usize = 128;
/// How many times as many are sorted next.
const TIMES: usize = 8;

impl Sampling {
    /// The token of a request's `stream` at `step`. `seen` as for [`probabilities`](Self::probabilities), and read only
    /// where the penalty is not 1.
    ///
    /// It is the first token, from the likeliest on, with which the running sum of probabilities passes a number in
    /// [0, 1) that depends on seed, stream and step alone.
    ///
    /// # Shapes
    /// `logits` `[vocabulary]`, not empty
    pub fn choose(&self, logits: &[f32], seen: &[u32], stream: u64, step: u64) -> u32 {
        Kept::new(self, logits, seen).at(|| uniform(self.seed, stream, step))
    }
}

/// The tokens that a draw may give.
enum Kept<'a> {
    /// The likeliest alone.
    Best(Cow<'a, [f32]>),
    /// Some of the likeliest.
    Some {
        /// From the likeliest on.
        words: Descending,
        /// How many are kept.
        count: usize,
        /// The sum of their weights.
        mass: f64,
    },
}

impl<'a> Kept<'a> {
    fn new(sampling: &Sampling, logits: &'a [f32], seen: &[u32]) -> Self {
        let logits = penalized(sampling, logits, seen);
        if sampling.is_greedy() {
            return Self::Best(logits);
        }
        let best = f64::from(logits[best_token(&logits)]);
        let temperature = f64::from(sampling.temperature);
        let weigh = |logit: f32| ((f64::from(logit) - best) / temperature).exp();
        let mut words =
            Descending::new(logits.iter().enumerate().map(|(id, &l)| (id as u32, weigh(l))).collect());
        let (mut count, mut mass) = (words.all.len(), None);
        if sampling.top_k > 0 && (sampling.top_k as usize) < count {
            count = sampling.top_k as usize;
            let last = words.at(count - 1).map_or(0.0, |word| word.1);
            while words.at(count).is_some_and(|word| word.1 >= last) {
                count += 1;
            }
            mass = Some(words.first(count));
        }
        if sampling.top_p < 1.0 {
            let total = mass.unwrap_or_else(|| words.all.iter().map(|word| word.1).sum());
            let (mut n, mut sum) = (0, 0.0);
            while n < count && (n == 0 || sum < f64::from(sampling.top_p) * total) {
                sum += words.at(n).map_or(0.0, |word| word.1);
                n += 1;
            }
            (count, mass) = (n, Some(sum));
        }
        if sampling.min_p > 0.0 {
            let mut n = 0;
            while n < count && words.at(n).is_some_and(|word| word.1 >= f64::from(sampling.min_p)) {
                n += 1;
            }
            (count, mass) = (n, Some(words.first(n)));
        }
        let mass = mass.unwrap_or_else(|| words.all.iter().map(|word| word.1).sum());
        Self::Some { words, count, mass }
    }

    /// The token at a share of the mass in [0, 1), from the likeliest on.
    fn at(self, draw: impl FnOnce() -> f64) -> u32 {
        match self {
            Self::Best(logits) => best_token(&logits) as u32,
            Self::Some { mut words, count, mass } => {
                let mut left = draw() * mass;
                for n in 0..count {
                    let Some((id, weight)) = words.at(n) else { break };
                    left -= weight;
                    if left < 0.0 {
                        return id;
                    }
                }
                // The sum in another order fell short of the draw by its rounding.
                words.at(count.saturating_sub(1)).map_or(0, |(id, _)| id)
            }
        }
    }
}

/// The logits with the penalty for repetition.
fn penalized<'a>(sampling: &Sampling, logits: &'a [f32], seen: &[u32]) -> Cow<'a, [f32]> {
    if !sampling.penalizes() {
        return Cow::Borrowed(logits);
    }
    let mut changed = logits.to_vec();
    for &id in seen {
        // From the untouched value, so that it counts once.
        let (logit, penalty) = (logits[id as usize], sampling.repetition_penalty);
        changed[id as usize] = if logit > 0.0 { logit / penalty } else { logit * penalty };
    }
    Cow::Owned(changed)
}

/// Tokens from the likeliest on, ties to the lower id, sorted as far as somebody asks.
struct Descending {
    all: Vec<(u32, f64)>,
    sorted: usize,
}

impl Descending {
    fn new(all: Vec<(u32, f64)>) -> Self {
        Self { all, sorted: 0 }
    }

    fn at(&mut self, index: usize) -> Option<(u32, f64)> {
        while index >= self.sorted && self.sorted < self.all.len() {
            let end = (self.sorted * TIMES).max(FIRST).min(self.all.len());
            let order = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
            let rest = &mut self.all[self.sorted..];
            let count = end - self.sorted;
            if count < rest.len() {
                rest.select_nth_unstable_by(count, order);
            }
            rest[..count].sort_unstable_by(order);
            self.sorted = end;
        }
        self.all.get(index).copied()
    }

    /// The weight of the first `count`.
    fn first(&mut self, count: usize) -> f64 {
        (0..count).filter_map(|n| self.at(n)).map(|word| word.1).sum()
    }
}

/// A number in [0, 1) that depends on nothing but its arguments (SplitMix64's mixing, Steele et al. 2014).
fn uniform(seed: u64, stream: u64, step: u64) -> f64 {
    let mut state = seed;
    for part in [stream, step] {
        state = mix(state ^ mix(part.wrapping_add(0x9e37_79b9_7f4a_7c15)));
    }
    (state >> 11) as f64 / (1u64 << 53) as f64
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_as_from_a_whole_sort_however_far_somebody_asks() {
        // Many equal ones, so that ties show.
        let values = (0..5000_u32).map(|id| (id, f64::from(id.wrapping_mul(2_654_435_761) >> 22)));
        let mut sorted: Vec<(u32, f64)> = values.clone().collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        for asked in [0, 1, 127, 128, 129, 1024, 4999] {
            let mut words = Descending::new(values.clone().collect());
            assert_eq!(words.at(asked), Some(sorted[asked]));
            assert_eq!((0..=asked).map(|n| words.at(n).unwrap()).collect::<Vec<_>>(), sorted[..=asked]);
            assert_eq!(words.at(5000), None);
        }
    }
}
