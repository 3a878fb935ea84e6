//! `descant bench step --cards`: the step of one card, made by several.
//!
//! One card makes it first, in the same run and while the others wait, then all of them together; both end with one
//! adapter, or the figures are of no use. What the link between them gives is measured with a large tensor.

use std::time::Instant;

use anyhow::Result;
use burn::tensor::{DType, Device, Tensor};
use descant_kernels::gauge;
use descant_lora::LoraAdapters;
use descant_model::GptOss;
use descant_train::memory::{Arrangement, Load};
use descant_train::{Link, Sample, Shared, TrainConfig, Trainer, Workers};
use descant_workers::Wait;
use serde::Serialize;

use super::timed::{digest, median};
use crate::cards::Team;
use crate::cli::BenchStep;
use crate::words::significant;

/// Numbers of the tensor that the link is measured with on a card: what a large adapter has.
const CARD_NUMBERS: usize = 92 << 20;
/// The same on the CPU.
const CPU_NUMBERS: usize = 1 << 20;
/// Times that it is sent; the fastest counts.
const TIMES: usize = 5;

/// What several cards made of a step.
#[derive(Debug, Serialize)]
pub(super) struct Scaling {
    cards: usize,
    step_seconds_median: f64,
    one_card_step_seconds_median: f64,
    /// How often the steps of all go into one of one card.
    times_one_card: f64,
    tokens_per_second: f64,
    /// Share of the computing time of all that was spent waiting for the slowest.
    idle: f64,
    /// How long the slowest computed, and which rank that was in most steps.
    compute_milliseconds: f64,
    slowest: usize,
    exchange_milliseconds: f64,
    exchange_bytes: u64,
    exchange_gb_per_second: f64,
    /// Bytes a second of one large tensor from one card to the others.
    link_gb_per_second: f64,
    exchange_to_link: f64,
    adapter_sha256: String,
    /// Whether one card ended with the same adapter.
    same_bytes: bool,
}

impl Scaling {
    /// For people.
    pub(super) fn words(&self) -> String {
        format!(
            "{} cards: {:.0} tok/s, {:.3} s a step, {:.2} of one card ({:.3} s); {:.1} % idle behind rank {}; gradients {} ms for {} MB, {} of \
             the {} GB/s of the link; adapter {} one card's",
            self.cards,
            self.tokens_per_second,
            self.step_seconds_median,
            self.times_one_card,
            self.one_card_step_seconds_median,
            100.0 * self.idle,
            self.slowest,
            significant(self.exchange_milliseconds),
            significant(self.exchange_bytes as f64 / 1e6),
            significant(self.exchange_gb_per_second),
            significant(self.link_gb_per_second),
            if self.same_bytes { "equal to" } else { "NOT equal to" },
        )
    }
}

/// A step, and those who are to make it.
pub(super) struct Scaled<'a> {
    pub(super) args: &'a BenchStep,
    pub(super) team: &'a Team,
    pub(super) link: &'a dyn Link,
    pub(super) model: &'a GptOss,
    pub(super) samples: &'a [Sample],
    pub(super) device: &'a Device,
}

/// Timed steps.
struct Timed {
    seconds: Vec<f64>,
    shared: Vec<Shared>,
    adapter_sha256: String,
}

impl Scaled<'_> {
    pub(super) fn measure(
        &self,
        config: &TrainConfig,
        arrangement: Arrangement,
        fresh: &dyn Fn() -> descant_lora::Result<LoraAdapters>,
    ) -> Result<Scaling> {
        let group = &self.team.group;
        let trainer =
            || anyhow::Ok(Trainer::new(self.model, fresh()?, config.clone())?.arranged(arrangement));
        let alone = if group.is_first() { Some(self.steps(trainer()?)?) } else { None };
        group.barrier("one card is done", Wait::Long)?;
        let link = self.rate()?;
        let workers = Workers { group, link: self.link };
        let together = self.steps(trainer()?.shared(workers, load_of(self.args, Some(self.team)).copies))?;
        let one = alone.as_ref().map_or(f64::NAN, |alone| median(&alone.seconds));
        let step = median(&together.seconds);
        let of = |value: fn(&Shared) -> f64| median(&together.shared.iter().map(value).collect::<Vec<_>>());
        let (exchange, bytes) =
            (of(|shared| shared.exchange_seconds), of(|shared| shared.exchange_bytes as f64));
        let tokens = (self.args.batch * self.args.sequence * self.args.accumulate) as f64;
        Ok(Scaling {
            cards: group.world(),
            step_seconds_median: step,
            one_card_step_seconds_median: one,
            times_one_card: one / step,
            tokens_per_second: tokens / step,
            idle: of(|shared| shared.idle),
            compute_milliseconds: 1e3 * of(|shared| shared.compute_seconds),
            slowest: of(|shared| shared.slowest as f64) as usize,
            exchange_milliseconds: 1e3 * exchange,
            exchange_bytes: bytes as u64,
            exchange_gb_per_second: bytes / exchange / 1e9,
            link_gb_per_second: link / 1e9,
            exchange_to_link: bytes / exchange / link,
            same_bytes: alone.is_some_and(|alone| alone.adapter_sha256 == together.adapter_sha256),
            adapter_sha256: together.adapter_sha256,
        })
    }

    /// Makes the steps; the first ones are not timed.
    fn steps(&self, mut trainer: Trainer<'_>) -> Result<Timed> {
        let micro_batches: Vec<Vec<&Sample>> =
            self.samples.chunks(self.args.batch).map(|chunk| chunk.iter().collect()).collect();
        let (mut seconds, mut shared) = (Vec::new(), Vec::new());
        for number in 0..self.args.warmup + self.args.steps {
            let start = Instant::now();
            trainer.step(&micro_batches)?;
            gauge::synchronize(self.device)?;
            if number >= self.args.warmup {
                seconds.push(start.elapsed().as_secs_f64());
                shared.extend(trainer.last_shared());
            }
        }
        Ok(Timed { seconds, shared, adapter_sha256: digest(trainer.adapters())? })
    }

    /// Bytes a second from rank 0 to all others.
    fn rate(&self) -> Result<f64> {
        let numbers = if descant_kernels::is_cpu(self.device) { CPU_NUMBERS } else { CARD_NUMBERS };
        let tensor = Tensor::<3>::zeros([1, 1, numbers], (self.device, DType::F32));
        let mut best = f64::INFINITY;
        for _ in 0..TIMES {
            gauge::synchronize(self.device)?;
            self.team.group.barrier("link", Wait::Long)?;
            let start = Instant::now();
            let mine = self.team.is_first().then(|| tensor.clone());
            drop(self.link.exchange(vec![(0, mine)], numbers, self.device)?);
            self.link.finish()?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok((numbers * size_of::<f32>()) as f64 / best)
    }
}

/// What goes through the model at once.
pub(super) fn load_of(args: &BenchStep, team: Option<&Team>) -> Load {
    let tokens = (args.batch * args.sequence) as u64;
    let load = Load { tokens, trained: tokens, longest: args.sequence as u64, in_all: 0, copies: 0 };
    load.shared(args.accumulate, team.map_or(1, |team| team.group.world()))
}
