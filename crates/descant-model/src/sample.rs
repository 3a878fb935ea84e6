//! Choosing a token from logits.
//!
//! Randomness is a function of (seed, sequence, step), so a sample can be repeated and does not depend on the
//! order in which sequences end.

use descant_kernels::reference::best_token;

/// How a token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// The largest logit; ties to the lower id.
    Greedy,
    /// At random, from softmax(logits / temperature) cut to the most likely tokens that together reach `top_p`.
    Random {
        /// Above 0.
        temperature: f32,
        /// In (0, 1].
        top_p: f32,
        /// Seed of the whole generation.
        seed: u64,
    },
}

/// The next token of sequence `sequence` at `step`.
pub(crate) fn pick(logits: &[f32], sampling: &Sampling, sequence: u64, step: u64) -> u32 {
    match *sampling {
        Sampling::Greedy => best_token(logits) as u32,
        Sampling::Random { temperature, top_p, seed } => {
            let draw = uniform(seed, sequence, step);
            nucleus(logits, temperature, top_p, draw)
        }
    }
}

/// Walks the sorted probabilities to `draw` of the mass that `top_p` keeps.
fn nucleus(logits: &[f32], temperature: f32, top_p: f32, draw: f64) -> u32 {
    let largest = logits[best_token(logits)];
    let weigh = |logit: f32| (f64::from(logit - largest) / f64::from(temperature)).exp();
    let mut words =
        Descending::new(logits.iter().enumerate().map(|(id, &l)| (id as u32, weigh(l))).collect());
    let total: f64 = words.all.iter().map(|word| word.1).sum();
    let mut mass = total;
    if top_p < 1.0 {
        mass = 0.0;
        let mut n = 0;
        while let Some((_, p)) = words.at(n).filter(|_| n == 0 || mass < f64::from(top_p) * total) {
            mass += p;
            n += 1;
        }
    }
    let mut left = draw * mass;
    for n in 0.. {
        let Some((id, p)) = words.at(n) else { break };
        left -= p;
        if left < 0.0 {
            return id;
        }
    }
    // The sum in another order fell short of the draw by its rounding.
    words.at(logits.len() - 1).map_or(0, |(id, _)| id)
}

/// Words from the likeliest on, ties to the lower id, sorted as far as somebody asks: a vocabulary has 201,088 words,
/// and a draw mostly ends among the first hundred.
struct Descending {
    all: Vec<(u32, f64)>,
    sorted: usize,
}

/// Words that are sorted first.
const FIRST: usize = 128;
/// How many times as many are sorted next.
const TIMES: usize = 8;

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
}

/// A number in [0, 1) that depends on nothing but its arguments (SplitMix64's mixing, Steele et al. 2014).
fn uniform(seed: u64, sequence: u64, step: u64) -> f64 {
    let mut state = seed;
    for part in [sequence, step] {
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
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(pick(&[1.0, 5.0, 5.0], &Sampling::Greedy, 0, 0), 1);
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let logits = [0.0f32, 1.0, 2.0];
        let sampling = Sampling::Random { temperature: 1.0, top_p: 1.0, seed: 3 };
        let n = 20_000;
        let mut counts = [0u32; 3];
        for step in 0..n {
            counts[pick(&logits, &sampling, 7, step) as usize] += 1;
        }
        let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        for (count, logit) in counts.iter().zip(logits) {
            let expected = f64::from(logit).exp() / total;
            assert!((f64::from(*count) / n as f64 - expected).abs() < 0.01, "{counts:?}");
        }
    }

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

    #[test]
    fn a_nucleus_keeps_the_words_whose_mass_before_them_is_below_top_p() {
        // Probabilities 0.4, 0.3, 0.2, 0.1.
        let logits: Vec<f32> = [0.2f32, 0.4, 0.1, 0.3].iter().map(|p| p.ln()).collect();
        for (top_p, kept) in [(0.39, 1), (0.41, 2), (0.69, 2), (0.71, 3), (0.91, 4), (1.0, 4)] {
            let sampling = Sampling::Random { temperature: 1.0, top_p, seed: 5 };
            let mut seen: Vec<u32> = (0..2000).map(|step| pick(&logits, &sampling, 0, step)).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), kept, "{top_p}: {seen:?}");
        }
    }

    #[test]
    fn a_small_nucleus_is_the_most_likely_token() {
        let sampling = Sampling::Random { temperature: 2.0, top_p: 0.01, seed: 3 };
        assert!((0..100).all(|step| pick(&[0.5, 3.0, 1.0], &sampling, 0, step) == 1));
    }
}
