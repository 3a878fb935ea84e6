//! The rows of a run in their order, as steps of the trainer, as events.

use std::time::Instant;

use anyhow::{Context as _, Result};
use descant_harmony::Order;
use descant_lora::LoraAdapters;
use descant_model::GptOss;
use descant_train::{Event, Observer, Sample, StepMetrics, StepTiming, TrainConfig, Trainer};

/// Trains to the last step.
pub(crate) fn fit(
    model: &GptOss,
    adapters: LoraAdapters,
    samples: &[Sample],
    config: &TrainConfig,
    observer: &mut dyn Observer,
) -> Result<LoraAdapters> {
    let mut order = Order::shuffled(samples.len(), config.seed).context("there are no rows to train on")?;
    let mut trainer = Trainer::new(model, adapters, config.clone())?;
    let mut position = 0;
    observer.on(&Event::Phase { name: "train", total: Some(config.max_steps) });
    for _ in 0..config.max_steps {
        let start = Instant::now();
        let mut next = || {
            position += 1;
            &samples[order.index_at(position - 1)]
        };
        let batches: Vec<Vec<&Sample>> =
            (0..config.accumulation).map(|_| (0..config.micro_batch).map(|_| next()).collect()).collect();
        let result = trainer.step(&batches)?;
        let seconds = start.elapsed().as_secs_f64();
        let metrics = StepMetrics {
            step: result.step,
            loss: result.loss,
            loss_bits: result.loss.to_bits(),
            first_analysis_loss: result.first_analysis_loss,
            learning_rate: result.learning_rate,
            grad_norm: result.grad_norm,
            samples: config.accumulation * config.micro_batch,
            tokens: result.tokens,
            trained_tokens: result.trained_tokens,
            epoch: position as f64 / samples.len() as f64,
        };
        let tokens_per_second = result.tokens as f64 / seconds;
        let timing = StepTiming { step: result.step, seconds, tokens_per_second };
        observer.on(&Event::Step { metrics: &metrics, timing, total: config.max_steps });
    }
    for (site, experts) in trainer.unreached_experts() {
        observer
            .on(&Event::Warning(&format!("{site}: no token reached {experts} experts; they are untrained")));
    }
    Ok(trainer.into_adapters())
}
