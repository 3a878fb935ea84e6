//! What measures experts in fp8, as far as a CPU can have it: a pass is a step up to its update, figures of two passes are
//! those of their definitions, and other tokens are beyond every gate.

use burn::tensor::Device;
use descant_kernels::{read_floats, reference};
use descant_lora::{LoraAdapters, LoraConfig};
use descant_model::{Batch, GptOss};
use descant_train::fp8::{Gates, Pass, measure};
use descant_train::{Error, Experts, Sample, TrainConfig, Trainer};

use crate::resume::{config, model, samples};

fn fresh(model: &GptOss) -> LoraAdapters {
    LoraAdapters::init(&model.config, &LoraConfig::default(), 7, &Device::flex().autodiff()).expect("valid")
}

/// An adapter whose every gradient is other than zero.
fn trained(model: &GptOss, samples: &[&Sample]) -> LoraAdapters {
    let config = TrainConfig { max_steps: 60, warmup_steps: 1, ..config(60) };
    let mut trainer = Trainer::new(model, fresh(model), config).expect("valid");
    for _ in 0..3 {
        trainer.step(&[samples.to_vec()]).expect("a step");
    }
    trainer.into_adapters().expect("the device works")
}

fn pass(model: &GptOss, adapters: &LoraAdapters, samples: &[&Sample]) -> Pass {
    Pass::new(model, adapters, samples, Experts::Bf16).expect("a pass")
}

#[test]
fn a_pass_is_a_step_up_to_its_update_and_leaves_the_next_step_alone() {
    let (model, samples) = (model(), samples());
    let batch: Vec<&Sample> = samples.iter().take(3).collect();
    let step = |measured: bool| {
        let mut trainer = Trainer::new(model, fresh(model), config(60)).expect("valid");
        let mut told = Vec::new();
        for _ in 0..3 {
            let pass = measured.then(|| pass(model, trainer.adapters(), &batch));
            let result = trainer.step(std::slice::from_ref(&batch)).expect("a step");
            if let Some(pass) = pass {
                let same = pass.deviation(model, &pass).expect("figures");
                assert_eq!((same.loss as f32).to_bits(), result.loss.to_bits());
                let counts = (same.conversations, same.tokens, same.trained_tokens);
                assert_eq!(counts, (3, result.tokens, result.trained_tokens));
            }
            told.push((result.loss.to_bits(), result.grad_norm.to_bits()));
        }
        let bits = |tensor| read_floats(tensor).expect("values").into_iter().map(f32::to_bits);
        let adapter: Vec<u32> = trainer.adapters().tensors().flat_map(|t| bits(t.clone())).collect();
        (told, adapter)
    };
    assert_eq!(step(true), step(false));
}

#[test]
fn one_pass_twice_is_the_same_and_other_tokens_are_beyond_every_gate() {
    let (model, samples) = (model(), samples());
    let batch: Vec<&Sample> = samples.iter().take(3).collect();
    for (adapters, dead) in [(fresh(model), true), (trained(model, &batch), false)] {
        let one = pass(model, &adapters, &batch);
        let again = pass(model, &adapters, &batch);
        assert!(one.is_same(&again).expect("values"));
        let same = one.deviation(model, &again).expect("figures");
        assert!(same.beyond(&Gates::WHOLE_MODEL).is_empty() && same.warning().is_none(), "{same:?}");
        assert_eq!((same.of_loss(), same.divergence), (0.0, 0.0));
        assert!(same.cosine.as_ref().is_some_and(|least| (least.value - 1.0).abs() < 1e-9), "{same:?}");
        // Each A of an adapter that was never trained.
        let tensors = 2 * adapters.pairs().len();
        assert_eq!(same.gradients + same.zero_gradients, tensors);
        assert_eq!(same.zero_gradients, if dead { tensors / 2 } else { 0 });
        let turned: Vec<Sample> = batch
            .iter()
            .map(|sample| Sample { ids: sample.ids.iter().rev().copied().collect(), ..(*sample).clone() })
            .collect();
        let other = pass(model, &adapters, &turned.iter().collect::<Vec<_>>());
        assert!(!one.is_same(&other).expect("values"));
        let far = one.deviation(model, &other).expect("figures");
        assert_eq!(far.beyond(&Gates::WHOLE_MODEL).len(), 4, "{far:?}");
    }
}

#[test]
fn the_divergence_is_that_of_all_words_behind_every_trained_token() {
    let (model, samples) = (model(), samples());
    let (one, other) = (fresh(model), trained(model, &[&samples[0]]));
    let batch = [&samples[1]];
    let found = pass(model, &one, &batch).deviation(model, &pass(model, &other, &batch)).expect("figures");
    let ids = Batch::new([samples[1].ids.as_slice()], model.config.vocab_size).expect("valid");
    let words = |adapters: &LoraAdapters| {
        let hidden = model.hidden(&ids, &adapters.frozen());
        let logits = read_floats(model.logits(hidden)).expect("logits");
        logits.chunks_exact(model.config.vocab_size).map(<[f32]>::to_vec).collect::<Vec<_>>()
    };
    let (p, q) = (words(&one), words(&other));
    let trained: Vec<usize> =
        (1..samples[1].ids.len()).filter(|at| samples[1].weights[*at] > 0.0).map(|at| at - 1).collect();
    let sum: f64 = trained.iter().map(|row| reference::divergence(&p[*row], &q[*row])).sum();
    let expected = sum / trained.len() as f64;
    assert_eq!(found.compared_tokens, trained.len());
    assert!(expected > 1e-5 && (found.divergence / expected - 1.0).abs() < 1e-2, "{found:?} {expected}");
}

#[test]
fn a_device_without_kernels_for_fp8_measures_nothing() {
    let (model, samples) = (model(), samples());
    let error = measure(model, &fresh(model), &[&samples[0]]).expect_err("refused");
    assert!(matches!(&error, Error::Config(why) if why.contains("fp8")), "{error}");
    let nothing = Sample { weights: vec![0.0; samples[0].ids.len()], ..samples[0].clone() };
    assert!(measure(model, &fresh(model), &[&nothing]).expect("nothing is trained").is_none());
}
