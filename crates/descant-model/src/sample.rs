//! How a token is chosen from logits: the settings, what they mean, and log-probabilities.
//!
//! The order is that of Hugging Face transformers 4.57 (`generation/utils.py`, `_get_logits_processor`; each step in
//! `generation/logits_process.py`): repetition penalty, temperature, top-k, top-p, min-p. vLLM 0.11
//! (`v1/sample/sampler.py`) has the same but for min-p, which it applies before top-k and top-p. It compares a token with
//! the likeliest, so which tokens pass it is the same either way; top-p alone sees other sums when both are set.
//!
//! [`Sampling::probabilities`] is the definition, written plainly; what draws (`pick.rs`) has it in integers and does not
//! sort a whole vocabulary, and tests compare the two.

/// How a token is chosen: plain numbers, the same for a kernel as for the host.
///
/// The defaults change nothing: a token is drawn from softmax(logits).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the largest, ties to the lower id, and the filters below do not matter.
    pub temperature: f32,
    /// Only so many of the likeliest tokens, those that tie with the last of them included; 0 for all.
    pub top_k: u32,
    /// Only the likeliest tokens that together reach this probability, the one that reaches it included, of what top-k
    /// left; ties go to the lower id. In (0, 1]; 1 for all.
    pub top_p: f32,
    /// Only tokens at least this many times as likely as the likeliest. In [0, 1]; 0 for all.
    pub min_p: f32,
    /// Logits of tokens that the prompt or the reply already has are divided by it where they are positive and
    /// multiplied where they are negative, once a token, also before a greedy choice (Keskar et al. 2019, "CTRL").
    /// Above 0; 1 for none.
    pub repetition_penalty: f32,
    /// Seed of the random numbers. Each is a function of (seed, stream of the request, step).
    pub seed: u64,
}

impl Sampling {
    /// The largest logit each time.
    pub const GREEDY: Self = Self { temperature: 0.0, ..Self::PLAIN };
    /// Softmax of the logits as they are.
    const PLAIN: Self =
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 };

    /// Whether nothing is drawn.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Whether logits depend on the tokens before.
    pub fn penalizes(&self) -> bool {
        self.repetition_penalty.to_bits() != 1.0f32.to_bits()
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Names the setting, its value and what is expected.
    pub fn check(&self) -> Result<(), String> {
        let Self { temperature, top_k: _, top_p, min_p, repetition_penalty, seed: _ } = *self;
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return Err(format!("temperature is {temperature}; expected a number from 0 (greedy)"));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(format!("top-p is {top_p}; expected a number above 0 and up to 1 (all tokens)"));
        }
        if !(0.0..=1.0).contains(&min_p) {
            return Err(format!("min-p is {min_p}; expected a number from 0 (all tokens) to 1"));
        }
        if !(repetition_penalty > 0.0 && repetition_penalty.is_finite()) {
            return Err(format!(
                "repetition penalty is {repetition_penalty}; expected a positive number, 1 for none"
            ));
        }
        Ok(())
    }

    /// The probability with which each token is chosen: the definition, by sorting everything. `seen` are the tokens of
    /// prompt and reply so far, in any order and number.
    ///
    /// # Shapes
    /// `[vocabulary]` to the same
    pub fn probabilities(&self, logits: &[f32], seen: &[u32]) -> Vec<f64> {
        let mut logits = logits.to_vec();
        let mut seen = seen.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            let (logit, penalty) = (&mut logits[id as usize], self.repetition_penalty);
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
        let logits: Vec<f64> = logits.into_iter().map(f64::from).collect();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let mut chosen = vec![0.0; logits.len()];
        if self.is_greedy() {
            chosen[order[0]] = 1.0;
            return chosen;
        }
        let best = logits[order[0]];
        let weight = |id: usize| ((logits[id] - best) / f64::from(self.temperature)).exp();
        if self.top_k > 0 && (self.top_k as usize) < order.len() {
            let last = logits[order[self.top_k as usize - 1]];
            order.retain(|&id| logits[id] >= last);
        }
        if self.top_p < 1.0 {
            let total: f64 = order.iter().map(|&id| weight(id)).sum();
            let mut before = 0.0;
            order.retain(|&id| {
                let keep = before < f64::from(self.top_p) * total;
                before += weight(id);
                keep
            });
        }
        order.retain(|&id| weight(id) >= f64::from(self.min_p));
        let total: f64 = order.iter().map(|&id| weight(id)).sum();
        for id in order {
            chosen[id] = weight(id) / total;
        }
        chosen
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self::PLAIN
    }
}

/// The logarithm of the sum of exponentials: a token's log-probability is its logit less this.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - best).exp()).sum();
    f64::from(best) + sum.ln()
}

/// The `n` likeliest tokens with their log-probabilities in nats under softmax(logits), ties to the lower id.
pub fn top_log_probabilities(logits: &[f32], n: usize) -> Vec<(u32, f32)> {
    let total = log_sum_exp(logits);
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    let order = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if n < ids.len() {
        ids.select_nth_unstable_by(n, order);
        ids.truncate(n);
    }
    ids.sort_unstable_by(order);
    ids.into_iter().map(|id| (id, (f64::from(logits[id as usize]) - total) as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_out_of_its_range_is_named() {
        for (name, wrong) in [
            ("temperature", Sampling { temperature: -0.1, ..Sampling::default() }),
            ("temperature", Sampling { temperature: f32::NAN, ..Sampling::default() }),
            ("temperature", Sampling { temperature: f32::INFINITY, ..Sampling::default() }),
            ("top-p", Sampling { top_p: 0.0, ..Sampling::default() }),
            ("top-p", Sampling { top_p: 1.1, ..Sampling::default() }),
            ("min-p", Sampling { min_p: -0.1, ..Sampling::default() }),
            ("min-p", Sampling { min_p: f32::NAN, ..Sampling::default() }),
            ("penalty", Sampling { repetition_penalty: 0.0, ..Sampling::default() }),
        ] {
            assert!(wrong.check().unwrap_err().contains(name), "{wrong:?}");
        }
        assert!(Sampling::default().check().is_ok() && Sampling::GREEDY.check().is_ok());
    }

    #[test]
    fn log_probabilities_are_those_of_the_unmodified_distribution() {
        let logits = [0.0f32, 2.0, 1.0, 2.0];
        let total = logits.iter().map(|&l| f64::from(l).exp()).sum::<f64>().ln();
        assert!((log_sum_exp(&logits) - total).abs() < 1e-12);
        let top = top_log_probabilities(&logits, 3);
        assert_eq!(top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 2]);
        assert!((f64::from(top[0].1) - (2.0 - total)).abs() < 1e-6);
        assert_eq!(top_log_probabilities(&logits, 9).len(), 4);
        assert!(top_log_probabilities(&logits, 0).is_empty());
        // Large logits do not overflow.
        assert!((log_sum_exp(&[1000.0, 1000.0]) - (1000.0 + 2.0f64.ln())).abs() < 1e-9);
    }
}
