//! The rows of a run in their order, as steps of the trainer, as events.

use std::time::Instant;

use anyhow::{Context as _, Result};
use descant_harmony::prepare::Example;
use descant_harmony::{ControlTokens, Order, TokenClass};
use descant_lora::LoraAdapters;
use descant_model::GptOss;
use descant_train::{Event, Observer, Sample, StepMetrics, StepTiming, TrainConfig, Trainer};

/// What the loop learns from, made of a prepared row.
pub(crate) fn sample(example: Example, control: &ControlTokens) -> Sample {
    let first_analysis = first_analysis(&example, control);
    Sample { row: example.row as usize, ids: example.ids, weights: example.mask.weights, first_analysis }
}

/// Index of the first token of the first analysis body, when it is trained.
fn first_analysis(example: &Example, control: &ControlTokens) -> Option<usize> {
    let start = example.mask.classes.iter().position(|class| *class == TokenClass::Analysis)?;
    let header = example.ids[start..].iter().position(|id| *id == control.message)?;
    let first = start + header + 1;
    example.mask.weights.get(first).is_some_and(|weight| *weight > 0.0).then_some(first)
}

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

#[cfg(test)]
mod tests {
    use descant_harmony::prepare::{PrepareOptions, prepare};
    use descant_harmony::read::{ReadOptions, read};
    use descant_harmony::{MaskPolicy, Renderer, TextEncoder as _};

    use super::*;

    fn samples(mask: MaskPolicy) -> (Renderer, Vec<Sample>) {
        let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss"));
        let renderer = Renderer::load(root, None).unwrap();
        let set = read(&root.join("data/held-out.jsonl"), &ReadOptions::default()).unwrap();
        let prepared =
            prepare(&renderer, &set, &PrepareOptions { mask, ..PrepareOptions::default() }).unwrap();
        let control = renderer.tokenizer().control().clone();
        (renderer, prepared.examples.into_iter().map(|example| sample(example, &control)).collect())
    }

    #[test]
    fn the_first_token_of_the_reasoning_is_found_in_every_row() {
        let (renderer, samples) = samples(MaskPolicy::Assistant);
        assert_eq!(samples.len(), 100);
        for sample in &samples {
            let first = sample.first_analysis.unwrap();
            let before = renderer.tokenizer().decode(&sample.ids[..first]).unwrap();
            assert!(before.ends_with("<|start|>assistant<|channel|>analysis<|message|>"), "{before}");
            assert!(sample.weights[first] > 0.0);
        }
    }

    #[test]
    fn reasoning_that_is_not_trained_has_no_first_token() {
        let (_, samples) = samples(MaskPolicy::FinalOnly);
        assert!(samples.iter().all(|sample| sample.first_analysis.is_none()));
        assert!(samples.iter().all(|sample| sample.weights.contains(&1.0)));
    }
}
