//! With an adapter: `golden/parity-a` (transformers: logits, loss, routing, every LoRA gradient, ten AdamW steps, greedy
//! tokens) and `golden/peft_tiny` (PEFT with experts: logits, loss, gradients). The base alone is descant-model's.

use std::cell::RefCell;

use burn::tensor::{Device, Tensor};
use descant_kernels::{Groups, Routing};
use descant_lora::LoraAdapters;
use descant_model::{Batch, GenerateOptions, GptOss, Overlay, Request, Site, Unwatched};
use descant_train::{Sample, Schedule, TrainConfig, Trainer, score};

use crate::golden::{
    adapters, attention_pairs, expert_pairs, folder, json, max_difference, read, relative_norm, values,
};

const LAYERS_A: usize = 4;

fn model_a() -> GptOss {
    GptOss::load(&folder("parity-a"), &Device::flex()).expect("the golden model loads")
}

fn lora_a(file: &str, device: &Device) -> LoraAdapters {
    adapters(attention_pairs(&read(file), "", "", LAYERS_A, 2.0, device))
}

fn sequences(ids: &[i64], length: usize) -> Vec<Vec<u32>> {
    ids.chunks_exact(length).map(|row| row.iter().map(|&id| id as u32).collect()).collect()
}

fn batch(model: &GptOss, sequences: &[Vec<u32>]) -> Batch {
    Batch::new(sequences.iter().map(Vec::as_slice), model.config.vocab_size)
        .expect("ids are in the vocabulary")
}

/// Samples with weight 1 where the label is not -100.
fn samples(ids: &[Vec<u32>], labels: &[i64]) -> Vec<Sample> {
    let length = ids[0].len();
    let sample = |(row, (ids, labels)): (usize, (&Vec<u32>, &[i64]))| Sample {
        row,
        ids: ids.clone(),
        weights: labels.iter().map(|&label| if label == -100 { 0.0 } else { 1.0 }).collect(),
        first_analysis: None,
    };
    ids.iter().zip(labels.chunks_exact(length)).enumerate().map(sample).collect()
}

/// An adapter that notes routing.
struct Noting<'a> {
    inner: &'a LoraAdapters,
    seen: RefCell<Vec<(Vec<i64>, Vec<f32>)>>,
}

impl Overlay for Noting<'_> {
    fn delta(&self, site: Site, x: &Tensor<2>, groups: &Groups) -> Option<Tensor<2>> {
        self.inner.delta(site, x, groups)
    }

    fn routed(&self, _layer: usize, logits: &Tensor<2>, routing: &Routing) {
        let experts = routing.experts.clone().into_data().iter::<i64>().collect();
        self.seen.borrow_mut().push((experts, values(logits.clone())));
    }
}

#[test]
fn parity_a_logits_and_routing_are_those_of_transformers() {
    let (model, inputs) = (model_a(), read("parity-a/inputs.safetensors"));
    let ids = sequences(&inputs["input_ids"].ints, 48);
    let lora = lora_a("parity-a/lora.safetensors", &Device::flex());
    let noting = Noting { inner: &lora, seen: RefCell::default() };
    let adapted = values(model.logits(model.hidden(&batch(&model, &ids), &noting)));
    let expected = read("parity-a/forward.safetensors");
    assert!(max_difference(&adapted, &expected["logits"].floats) <= 1e-4);
    let router = read("parity-a/router.safetensors");
    let seen = noting.seen.into_inner();
    assert_eq!(seen.len(), LAYERS_A);
    for (layer, (experts, logits)) in seen.iter().enumerate() {
        assert_eq!(experts, &router[&format!("layers.{layer}.indices")].ints, "layer {layer}");
        assert!(max_difference(logits, &router[&format!("layers.{layer}.logits")].floats) <= 1e-4);
    }
}

#[test]
fn parity_a_gradients_are_those_of_transformers() {
    let (model, inputs, expected) =
        (model_a(), read("parity-a/inputs.safetensors"), json("parity-a/expected.json"));
    let ids = sequences(&inputs["input_ids"].ints, 48);
    let lora = lora_a("parity-a/lora.safetensors", &Device::flex().autodiff());
    let samples = samples(&ids, &inputs["labels"].ints);
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    for (s, sample) in samples.iter().enumerate() {
        for i in 1..48 {
            if sample.weights[i] > 0.0 {
                rows.push(s * 48 + i - 1);
                targets.push(sample.ids[i]);
            }
        }
    }
    let hidden = model.hidden(&batch(&model, &ids), &lora);
    let loss = model.token_losses(hidden, &rows, &targets).mean();
    let value = values(loss.clone().inner())[0];
    assert!((f64::from(value) - expected["lora_loss"].as_f64().unwrap()).abs() <= 1e-5, "{value}");
    let grads = loss.backward();
    let golden = read("parity-a/grads.safetensors");
    for (site, pair) in lora.pairs() {
        for (which, tensor) in [("A", &pair.a), ("B", &pair.b)] {
            let key = format!("model.layers.{}.self_attn.{}.lora_{which}", site.layer, site.kind.name());
            let gradient = values(tensor.grad(&grads).expect("a gradient"));
            let difference = relative_norm(&gradient, &golden[&key].floats);
            assert!(difference <= 1e-4, "{key}: {difference:e}");
        }
    }
}

#[test]
fn parity_a_ten_steps_are_those_of_torch() {
    let (model, inputs, expected) =
        (model_a(), read("parity-a/inputs.safetensors"), json("parity-a/expected.json"));
    let all = &inputs["steps_input_ids"];
    let lora = lora_a("parity-a/lora.safetensors", &Device::flex().autodiff());
    let config = TrainConfig {
        max_steps: 10,
        warmup_steps: 5,
        learning_rate: 2e-4,
        schedule: Schedule::Linear,
        weight_decay: 0.01,
        max_grad_norm: 1.0,
        ..TrainConfig::default()
    };
    let mut trainer = Trainer::new(&model, lora, config).expect("a valid configuration");
    for (step, ids) in all.ints.chunks_exact(2 * 48).enumerate() {
        let samples = samples(&sequences(ids, 48), ids);
        // Two micro-batches: the step's loss is the mean over its tokens, not the mean of means.
        let micro: Vec<Vec<&Sample>> = samples.iter().map(|s| vec![s]).collect();
        let result = trainer.step(&micro).expect("a step");
        let close = |got: f32, key: &str, tolerance: f64| {
            let expected = expected["steps"][key][step].as_f64().unwrap();
            let difference = (f64::from(got) - expected).abs();
            assert!(
                difference <= tolerance * expected.abs().max(1.0),
                "step {step} {key}: {got} != {expected}"
            );
        };
        close(result.loss, "loss", 1e-4);
        close(result.grad_norm, "grad_norm", 1e-4);
        assert!((result.learning_rate - expected["steps"]["lr"][step].as_f64().unwrap()).abs() < 1e-12);
    }
    let golden = read("parity-a/trained.safetensors");
    for (site, pair) in trainer.adapters().pairs() {
        for (which, tensor) in [("A", &pair.a), ("B", &pair.b)] {
            let key = format!("model.layers.{}.self_attn.{}.lora_{which}", site.layer, site.kind.name());
            assert!(relative_norm(&values(tensor.clone().inner()), &golden[&key].floats) <= 1e-4, "{key}");
        }
    }
}

#[test]
fn parity_a_greedy_tokens_are_those_of_transformers() {
    let (model, inputs, expected) =
        (model_a(), read("parity-a/inputs.safetensors"), json("parity-a/expected.json"));
    let prompt = inputs["prompt"].sequences().concat();
    let lora = lora_a("parity-a/lora.safetensors", &Device::flex());
    // A second prompt beside it, so that slots and lengths differ.
    let requests = [prompt[..5].to_vec(), prompt.clone()].map(|ids| Request::greedy(ids, 64));
    let options = GenerateOptions::default();
    let out = model.generate(&requests, &lora, &options, &mut Unwatched).expect("generates");
    let golden: Vec<u32> = serde_json::from_value(expected["greedy"]["lora"].clone()).expect("ids");
    assert_eq!(out[1].ids, golden);
}

#[test]
fn peft_tiny_logits_loss_and_expert_gradients_are_those_of_peft() {
    let model = GptOss::load(&folder("peft_tiny/base"), &Device::flex()).expect("the golden model loads");
    let io = read("peft_tiny/io.safetensors");
    let ids = sequences(&io["input_ids"].ints, 40);
    let file = read("peft_tiny/adapter/adapter_model.safetensors");
    let device = Device::flex().autodiff();
    let mut pairs = attention_pairs(&file, "base_model.model.", ".weight", 2, 2.0, &device);
    pairs.extend(expert_pairs(&file, 2, 4, 2.0, &device));
    let lora = adapters(pairs);
    let hidden = model.hidden(&batch(&model, &ids), &lora);
    let adapted = values(model.logits(hidden.clone()).inner());
    assert!(max_difference(&adapted, &io["logits_adapter"].floats) <= 1e-4);
    let labels = &io["labels"].ints;
    let rows: Vec<usize> = (0..39).filter(|&i| labels[i + 1] != -100).collect();
    let targets: Vec<u32> = rows.iter().map(|&i| labels[i + 1] as u32).collect();
    let loss = model.token_losses(hidden, &rows, &targets).mean();
    assert!((values(loss.clone().inner())[0] - io["loss"].floats[0]).abs() <= 1e-5);
    let scored = score(&model, &lora, &ids[0], Some(labels)).expect("scores");
    assert!((scored.loss.unwrap() - f64::from(io["loss"].floats[0])).abs() <= 1e-5);
    let grads = loss.backward();
    let golden = read("peft_tiny/lora_grads.safetensors");
    let plain = Device::flex();
    let mut expected = attention_pairs(&golden, "base_model.model.", ".weight", 2, 1.0, &plain);
    expected.extend(expert_pairs(&golden, 2, 4, 1.0, &plain));
    for (site, pair) in lora.pairs() {
        let golden = &expected[site];
        for (which, tensor, golden) in [("A", &pair.a, &golden.a), ("B", &pair.b, &golden.b)] {
            let gradient = values(tensor.grad(&grads).expect("a gradient"));
            let difference = relative_norm(&gradient, &values(golden.clone()));
            assert!(difference <= 1e-4, "{site} {which}: {difference:e}");
        }
    }
}
