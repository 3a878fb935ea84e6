//! The whole run of the optimizer: samples in their seeded order, step after step, told as events.

use std::time::Instant;

use descant_lora::LoraAdapters;
use descant_model::GptOss;

use crate::config::TrainConfig;
use crate::error::Result;
use crate::event::{Event, Observer, StepMetrics, StepTiming};
use crate::feed::Feed;
use crate::sample::Sample;
use crate::trainer::Trainer;

/// Trains to the last step. The position in the order is all that decides which samples a step takes.
///
/// # Errors
/// There are no samples, or a step fails; see [`Trainer::step`].
pub fn fit(
    model: &GptOss,
    adapters: LoraAdapters,
    samples: &[Sample],
    config: &TrainConfig,
    observer: &mut dyn Observer,
) -> Result<LoraAdapters> {
    let mut feed = Feed::new(samples, config)?;
    let mut trainer = Trainer::new(model, adapters, config.clone())?;
    let mut position = 0;
    observer.on(&Event::Phase { name: "train", total: Some(config.max_steps) });
    for _ in 0..config.max_steps {
        let start = Instant::now();
        let batches: Vec<Vec<&Sample>> =
            (0..config.accumulation).map(|_| feed.take(&mut position)).collect::<Result<_>>()?;
        let result = trainer.step(&batches)?;
        let seconds = start.elapsed().as_secs_f64();
        let metrics = StepMetrics {
            step: result.step,
            loss: result.loss,
            loss_bits: result.loss.to_bits(),
            first_analysis_loss: result.first_analysis_loss,
            learning_rate: result.learning_rate,
            grad_norm: result.grad_norm,
            samples: batches.iter().map(Vec::len).sum(),
            tokens: result.tokens,
            trained_tokens: result.trained_tokens,
            epoch: position as f64 / feed.epoch() as f64,
        };
        let tokens_per_second = result.tokens as f64 / seconds;
        let timing = StepTiming { step: result.step, seconds, tokens_per_second };
        observer.on(&Event::Step { metrics: &metrics, timing, total: config.max_steps });
    }
    for (site, experts) in trainer.unreached_experts() {
        let text = format!(
            "{site}: {experts} experts had no gradient; no token that bears on the loss reached them"
        );
        observer.on(&Event::Warning(&text));
    }
    Ok(trainer.into_adapters())
}
