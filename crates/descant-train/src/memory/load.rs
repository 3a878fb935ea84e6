//! What goes through the model at once, found by walking through the order of a run.

use crate::config::TrainConfig;
use crate::error::Result;
use crate::feed::Feed;
use crate::sample::Samples;
use crate::workers::copies;

/// Micro-batches that are looked at for the longest; a run of more is taken for one of so many.
const MOST_LOOKED_AT: u64 = 100_000;

/// What goes through the model at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Tokens of the longest micro-batch.
    pub tokens: u64,
    /// Most trained tokens of a micro-batch.
    pub trained: u64,
    /// Tokens of the longest sequence.
    pub longest: u64,
    /// Tokens of all steps.
    pub in_all: u64,
    /// Copies of the adapters' gradients that are kept beside those of a process alone.
    pub copies: u64,
}

impl Load {
    /// Of a whole run, its longest micro-batch, in each of so many processes that share its steps.
    ///
    /// # Errors
    /// There are no samples, or with packing one is too long.
    pub fn of_run(samples: &dyn Samples, config: &TrainConfig, workers: usize) -> Result<Self> {
        let mut feed = Feed::new(samples, config)?;
        let mut longest = Self::default();
        let mut position = 0;
        // Tokens of the micro-batches of a step that train something: those are dealt.
        let mut of_step = Vec::new();
        // Every pass has an order of its own, so the last one may bring the longest together.
        let of_run = config.max_steps.saturating_mul(config.accumulation as u64);
        let looked_at = of_run.min(MOST_LOOKED_AT);
        for number in 1..=looked_at {
            let batch = feed.places(&mut position)?;
            let tokens: u64 = batch.iter().map(|at| samples.tokens(*at) as u64).sum();
            let trained: u64 = batch.iter().map(|at| samples.trained(*at) as u64).sum();
            let of_one = batch.iter().map(|at| samples.tokens(*at) as u64).max().unwrap_or(0);
            longest = Self {
                tokens: longest.tokens.max(tokens),
                trained: longest.trained.max(trained),
                longest: longest.longest.max(of_one),
                in_all: longest.in_all + tokens,
                ..longest
            };
            of_step.extend((trained > 0).then_some(tokens as usize));
            if number.is_multiple_of(config.accumulation as u64) || number == looked_at {
                longest.copies = longest.copies.max(copies(&of_step, workers) as u64);
                of_step.clear();
            }
        }
        // The rest of a long run is taken to be like what was looked at.
        let in_all = longest.in_all as f64 * of_run as f64 / looked_at.max(1) as f64;
        longest.in_all = in_all as u64;
        Ok(longest)
    }

    /// The same in each of so many processes that share steps of so many micro-batches like this one.
    #[must_use]
    pub fn shared(self, micro_batches: usize, workers: usize) -> Self {
        let tokens = vec![self.tokens as usize; micro_batches];
        Self { copies: copies(&tokens, workers) as u64, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn the_longest_micro_batch_of_a_run_is_found() {
        let sample = |row: usize| {
            let ids = vec![1; 3 + row * row % 17];
            Sample { row, weights: vec![1.0; ids.len()], ids, first_analysis: None }
        };
        let samples: Vec<Sample> = (0..23).map(sample).collect();
        for packing in [false, true] {
            let config = TrainConfig {
                micro_batch: 3.into(),
                max_steps: 400,
                packing,
                max_sequence: 24,
                ..TrainConfig::default()
            };
            let found = Load::of_run(&samples, &config, 1).unwrap();
            let mut feed = Feed::new(&samples, &config).unwrap();
            let mut position = 0;
            let tokens: Vec<usize> = (0..400)
                .map(|_| feed.take(&mut position).unwrap().iter().map(|s| s.ids.len()).sum())
                .collect();
            assert_eq!(found.tokens, *tokens.iter().max().unwrap() as u64);
            assert_eq!(found.in_all, tokens.iter().sum::<usize>() as u64);
        }
    }

    #[test]
    fn copies_are_those_of_the_step_that_is_dealt_most_unevenly() {
        let sample = |row: usize| {
            let ids = vec![1; if row == 0 { 4000 } else { 20 }];
            Sample { row, weights: vec![1.0; ids.len()], ids, first_analysis: None }
        };
        let samples: Vec<Sample> = (0..60).map(sample).collect();
        let config =
            TrainConfig { micro_batch: 1.into(), accumulation: 6, max_steps: 10, ..TrainConfig::default() };
        let copies = |workers| Load::of_run(&samples, &config, workers).unwrap().copies;
        // Once in a pass one process has the long one alone, and the other all five that come with it.
        assert_eq!([copies(1), copies(2)], [0, 5 + 2]);
        let even = Load { tokens: 20, ..Load::default() }.shared(6, 2);
        assert_eq!(even.copies, 3 + 2);
    }
}
