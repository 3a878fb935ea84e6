//! The loss on examples that are not trained on, by channel, every so many steps.
//!
//! It is computed as the training loss is, without a gradient, on the same tokens each time and in the same batches, so
//! that two equal runs share it to the bit. It changes nothing in the training; only a run that was configured to may
//! end by it. What earlier processes of a run found comes from the run's own log, so that a checkpoint need not hold
//! it.

use std::collections::BTreeMap;

use descant_harmony::TokenClass;
use descant_kernels::read_floats;
use descant_lora::LoraAdapters;
use descant_model::{Batch, GptOss};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::sample::Sample;
use crate::workers::{Workers, cost};

/// A sequence whose loss is watched.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    /// Its tokens, with the weights that they would be trained with.
    pub sample: Sample,
    /// What each token is part of.
    pub classes: Vec<TokenClass>,
}

/// What is watched, and when a run ends by it.
pub struct Validation<'a> {
    /// The sequences.
    pub watched: &'a [Watched],
    /// Steps from one look to the next; the last step is one too.
    pub every: u64,
    /// A run ends when the loss has not fallen below its least for so many looks.
    pub patience: Option<u64>,
    /// What earlier processes of the run found: step and loss.
    pub past: Vec<(u64, f32)>,
    /// Called with step and adapter when the loss is lower than ever.
    pub best: &'a dyn Fn(u64, &LoraAdapters) -> Result<()>,
}

/// Loss of the watched tokens at a step; equal in equal runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidationMetrics {
    /// Weighted mean loss in nats, as the training loss is made.
    pub loss: f32,
    /// Bits of `loss`.
    pub loss_bits: u32,
    /// Tokens that it is the mean of.
    pub tokens: usize,
    /// The plain mean of each channel.
    pub channels: BTreeMap<String, ChannelLoss>,
}

/// Loss of the tokens of one channel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ChannelLoss {
    /// Mean loss in nats.
    pub loss: f32,
    /// Tokens.
    pub tokens: usize,
}

/// A run's validation between two steps.
pub(crate) struct Validator<'a> {
    what: Validation<'a>,
    /// Most tokens that go through the model at once.
    most: usize,
    /// Step and least loss so far.
    best: Option<(u64, f32)>,
    /// Looks since then.
    since: u64,
}

impl<'a> Validator<'a> {
    /// Continues after what earlier processes found; a longer sequence than `most` tokens goes alone.
    ///
    /// # Errors
    /// There is nothing to watch, or a sequence is malformed.
    pub(crate) fn new(what: Validation<'a>, most: usize) -> Result<Self> {
        for watched in what.watched {
            watched.sample.check()?;
        }
        if what.every == 0 || !what.watched.iter().any(|w| w.sample.targets().next().is_some()) {
            return Err(Error::Config("validation has no trained token, or validate.every is 0".to_owned()));
        }
        let mut validator = Self { what, most, best: None, since: 0 };
        for (step, loss) in std::mem::take(&mut validator.what.past) {
            validator.count(step, loss);
        }
        Ok(validator)
    }

    /// Whether a step is followed by a look.
    pub(crate) fn is_due(&self, step: u64, last: u64) -> bool {
        step == last || step.is_multiple_of(self.what.every)
    }

    /// Whether the run ends here.
    pub(crate) fn is_over(&self) -> bool {
        self.what.patience.is_some_and(|patience| self.since >= patience)
    }

    /// Step and least loss so far.
    pub(crate) fn best(&self) -> Option<(u64, f32)> {
        self.best
    }

    /// Looks; keeps the adapter where the loss is lower than ever.
    ///
    /// # Errors
    /// The loss is not a number, the device failed, or the adapter cannot be kept.
    pub(crate) fn look(
        &mut self,
        step: u64,
        model: &GptOss,
        adapters: &LoraAdapters,
        workers: Option<Workers<'_>>,
    ) -> Result<ValidationMetrics> {
        let metrics = measure(model, &adapters.frozen(), self.what.watched, self.most, workers)?;
        if !metrics.loss.is_finite() {
            let (what, value) = ("the validation loss", metrics.loss);
            return Err(Error::NotFinite { step, what, value, rows: Vec::new() });
        }
        if self.count(step, metrics.loss) {
            (self.what.best)(step, adapters)?;
        }
        Ok(metrics)
    }

    /// Takes in a loss; whether it is lower than ever. One that is not a number is not.
    fn count(&mut self, step: u64, loss: f32) -> bool {
        let lower = !loss.is_nan() && self.best.is_none_or(|(_, least)| loss < least);
        if lower {
            self.best = Some((step, loss));
            self.since = 0;
        } else {
            self.since += 1;
        }
        lower
    }
}

/// The loss of the watched tokens under an adapter that has no graph. Processes that share a run share this too.
fn measure(
    model: &GptOss,
    adapters: &LoraAdapters,
    watched: &[Watched],
    most: usize,
    workers: Option<Workers<'_>>,
) -> Result<ValidationMetrics> {
    let batches = batches(watched, most);
    let costs: Vec<u64> =
        batches.iter().map(|batch| cost(batch.iter().map(|w| w.sample.ids.len()).sum())).collect();
    let look = |at: usize| losses(model, adapters, batches[at]);
    let losses: Vec<Vec<f32>> = match workers {
        Some(workers) => workers.spread("validation", &costs, look)?,
        None => (0..batches.len()).map(look).collect::<Result<_>>()?,
    };
    let (mut sum, mut weight, mut tokens) = (0.0, 0.0, 0);
    let mut channels: BTreeMap<&'static str, (f64, usize)> = BTreeMap::new();
    for (batch, losses) in batches.into_iter().zip(losses) {
        let targets = batch.iter().flat_map(|Watched { sample, classes }| {
            sample.targets().map(|target| (target.weight, classes.get(target.row + 1).copied()))
        });
        for (loss, (share, class)) in losses.into_iter().map(f64::from).zip(targets) {
            sum += loss * f64::from(share);
            weight += f64::from(share);
            tokens += 1;
            let channel = channels.entry(class.map_or("unknown", TokenClass::as_str)).or_default();
            *channel = (channel.0 + loss, channel.1 + 1);
        }
    }
    let loss = (sum / weight) as f32;
    let mean = |(name, (sum, tokens)): (&str, (f64, usize))| {
        (name.to_owned(), ChannelLoss { loss: (sum / tokens as f64) as f32, tokens })
    };
    let channels = channels.into_iter().map(mean).collect();
    Ok(ValidationMetrics { loss, loss_bits: loss.to_bits(), tokens, channels })
}

/// The loss of each trained token of some sequences.
fn losses(model: &GptOss, adapters: &LoraAdapters, batch: &[Watched]) -> Result<Vec<f32>> {
    let ids = batch.iter().map(|watched| watched.sample.ids.as_slice());
    let whole = Batch::new(ids, model.config.vocab_size)?;
    let (mut rows, mut ids, mut start) = (Vec::new(), Vec::new(), 0);
    for Watched { sample, .. } in batch {
        for target in sample.targets() {
            rows.push(start + target.row);
            ids.push(target.id);
        }
        start += sample.ids.len();
    }
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let hidden = model.hidden(&whole, adapters);
    Ok(read_floats(model.token_losses(hidden, &rows, &ids))?)
}

/// Sequences that go through the model together: in their order, as many as stay within `most` tokens.
fn batches(watched: &[Watched], most: usize) -> Vec<&[Watched]> {
    let (mut batches, mut from, mut tokens) = (Vec::new(), 0, 0);
    for (at, one) in watched.iter().enumerate() {
        let length = one.sample.ids.len();
        if at > from && tokens + length > most {
            batches.push(&watched[from..at]);
            (from, tokens) = (at, 0);
        }
        tokens += length;
    }
    batches.push(&watched[from..]);
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(lengths: &[usize]) -> Vec<Watched> {
        let one = |tokens: &usize| Watched {
            sample: Sample {
                row: 1,
                ids: vec![1; *tokens],
                weights: vec![1.0; *tokens],
                first_analysis: None,
            },
            classes: vec![TokenClass::Final; *tokens],
        };
        lengths.iter().map(one).collect()
    }

    #[test]
    fn batches_keep_the_order_and_stay_within_the_limit() {
        let watched = watched(&[3, 4, 2, 20, 1, 1]);
        let lengths = |most| -> Vec<Vec<usize>> {
            let batches = batches(&watched, most);
            batches.iter().map(|batch| batch.iter().map(|w| w.sample.ids.len()).collect()).collect()
        };
        assert_eq!(lengths(8), [vec![3, 4], vec![2], vec![20], vec![1, 1]]);
        assert_eq!(lengths(100), [vec![3, 4, 2, 20, 1, 1]]);
        assert_eq!(lengths(1).len(), 6);
    }

    #[test]
    fn a_run_is_over_after_so_many_looks_without_a_lower_loss_also_across_processes() {
        let watched = watched(&[3]);
        let never = |_: u64, _: &LoraAdapters| Ok(());
        let with = |past: &[(u64, f32)]| {
            let past = past.to_vec();
            let what = Validation { watched: &watched, every: 5, patience: Some(2), past, best: &never };
            Validator::new(what, 10).unwrap()
        };
        let mut looks = with(&[]);
        for (step, loss, over) in
            [(5, 3.0, false), (10, 2.0, false), (15, 2.0, false), (20, f32::NAN, true), (25, 1.0, false)]
        {
            looks.count(step, loss);
            assert_eq!(looks.is_over(), over, "step {step}");
        }
        assert_eq!(looks.best(), Some((25, 1.0)));
        assert!(with(&[(5, 3.0), (10, 4.0), (15, 3.5)]).is_over());
        assert_eq!(with(&[(5, 3.0), (10, 4.0)]).best(), Some((5, 3.0)));
        assert!(looks.is_due(10, 12) && looks.is_due(12, 12) && !looks.is_due(11, 12));
    }
}
