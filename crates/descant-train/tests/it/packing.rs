//! Packed training is unpacked training: the same documents in one step give the same loss and the same gradient,
//! however they are put into sequences, and no document sees its neighbour.

use burn::tensor::Device;
use descant_lora::{LoraAdapters, LoraConfig};
use descant_model::{Bare, Batch, GptOss};
use descant_train::{Event, Observer, Sample, StepMetrics, TrainConfig, fit, score};

use crate::golden::folder;

fn model() -> GptOss {
    GptOss::load(&folder("parity-a"), &Device::flex()).expect("the golden model loads")
}

/// Documents of several lengths, some of their tokens with half weight or none.
fn samples() -> Vec<Sample> {
    let sample = |row: usize| {
        let length = 5 + (row * 7) % 23;
        let ids = (0..length).map(|at| ((row * 31 + at * 17) % 200) as u32).collect();
        let weights = (0..length).map(|at| [1.0, 0.0, 0.5][(row + at) % 3]).collect();
        Sample { row, ids, weights, first_analysis: None }
    };
    (0..12).map(sample).collect()
}

#[derive(Default)]
struct Seen(Vec<StepMetrics>);

impl Observer for Seen {
    fn on(&mut self, event: &Event<'_>) {
        if let Event::Step { metrics, .. } = event {
            self.0.push((*metrics).clone());
        }
    }
}

/// The first step, over every document once.
fn whole_epoch(samples: &[Sample], packing: bool, sequences: usize) -> StepMetrics {
    let model = model();
    let device = Device::flex().autodiff();
    let config = TrainConfig {
        packing,
        max_sequence: 40,
        micro_batch: 1.into(),
        accumulation: sequences,
        max_steps: 1,
        warmup_steps: 0,
        ..TrainConfig::default()
    };
    let adapters =
        LoraAdapters::init(&model.config, &LoraConfig::default(), 1, &device).expect("a valid configuration");
    let mut seen = Seen::default();
    fit(&model, adapters, samples, &config, &mut seen).expect("a step");
    seen.0.remove(0)
}

#[test]
fn a_step_over_all_documents_is_the_same_packed_and_unpacked() {
    let samples = samples();
    let tokens: usize = samples.iter().map(|sample| sample.ids.len()).sum();
    let unpacked = whole_epoch(&samples, false, samples.len());
    let bins = tokens.div_ceil(40);
    let packed = (bins..samples.len()).map(|bins| whole_epoch(&samples, true, bins));
    let packed =
        packed.into_iter().find(|metrics| metrics.epoch >= 1.0).expect("some number of bins is an epoch");
    assert!((packed.epoch - 1.0).abs() + (unpacked.epoch - 1.0).abs() < 1e-12, "{packed:?}");
    assert_eq!((packed.samples, packed.tokens), (12, tokens));
    assert_eq!((unpacked.samples, unpacked.tokens), (12, tokens));
    assert_eq!(packed.trained_tokens, unpacked.trained_tokens);
    assert!((packed.loss - unpacked.loss).abs() < 1e-5, "{} {}", packed.loss, unpacked.loss);
    let norms = (packed.grad_norm, unpacked.grad_norm);
    assert!((norms.0 - norms.1).abs() < 1e-4 * norms.1, "{norms:?}");
}

#[test]
fn a_document_is_scored_as_if_it_were_alone() {
    let (model, samples) = (model(), samples());
    let batch =
        Batch::new(samples.iter().map(|sample| sample.ids.as_slice()), model.config.vocab_size).unwrap();
    let hidden = model.hidden(&batch, &Bare);
    let (mut rows, mut ids, mut start) = (Vec::new(), Vec::new(), 0);
    for sample in &samples {
        rows.extend(start..start + sample.ids.len() - 1);
        ids.extend(&sample.ids[1..]);
        start += sample.ids.len();
    }
    let losses: Vec<f32> = model.token_losses(hidden, &rows, &ids).into_data().try_to_vec().unwrap();
    let alone = samples.iter().flat_map(|sample| score(&model, &Bare, &sample.ids, None).unwrap().logprobs);
    for (packed, alone) in losses.iter().zip(alone) {
        assert!((packed + alone).abs() < 1e-4, "{packed} {alone}");
    }
    // The control: without borders the second document would see the first.
    let joined = [samples[0].ids.clone(), samples[1].ids.clone()].concat();
    let seen = score(&model, &Bare, &joined, None).unwrap().logprobs;
    let first = samples[0].ids.len();
    let differs =
        losses[first..].iter().zip(&seen[first + 1..]).any(|(packed, seen)| (packed + seen).abs() > 1e-2);
    assert!(differs, "the documents do not touch each other even when they are one");
}
