//! Choosing a token from logits.
//!
//! Randomness is a function of (seed, sequence, step), so a sample can be repeated and does not depend on the
//! order in which sequences end.

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
        Sampling::Greedy => greedy(logits),
        Sampling::Random { temperature, top_p, seed } => {
            let draw = uniform(seed, sequence, step);
            nucleus(logits, temperature, top_p, draw)
        }
    }
}

fn greedy(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// Walks the sorted probabilities to `draw` of the mass that `top_p` keeps.
fn nucleus(logits: &[f32], temperature: f32, top_p: f32, draw: f64) -> u32 {
    let largest = logits[greedy(logits) as usize];
    let mut words: Vec<(u32, f64)> = logits
        .iter()
        .enumerate()
        .map(|(id, &logit)| (id as u32, (f64::from(logit - largest) / f64::from(temperature)).exp()))
        .collect();
    words.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let total: f64 = words.iter().map(|w| w.1).sum();
    let mut kept = 0.0;
    let n = words.iter().take_while(|w| {
        let before = kept;
        kept += w.1;
        before < f64::from(top_p) * total
    });
    let n = n.count().max(1);
    let mass: f64 = words[..n].iter().map(|w| w.1).sum();
    let mut left = draw * mass;
    for &(id, p) in &words[..n] {
        left -= p;
        if left < 0.0 {
            return id;
        }
    }
    words[n - 1].0
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
    fn a_small_nucleus_is_the_most_likely_token() {
        let sampling = Sampling::Random { temperature: 2.0, top_p: 0.01, seed: 3 };
        assert!((0..100).all(|step| pick(&[0.5, 3.0, 1.0], &sampling, 0, step) == 1));
    }
}
