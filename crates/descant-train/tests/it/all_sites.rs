//! `golden/parity-b`: head width 64, four of six experts, a window of 5, clamps that bite, and a PEFT adapter of
//! rank 3 on attention, router and experts, read from its own files.

use std::cell::RefCell;

use burn::tensor::{Device, Tensor};
use descant_kernels::{Groups, Routing};
use descant_lora::LoraAdapters;
use descant_model::{Batch, GenerateOptions, GptOss, Overlay, Request, Site, SiteKind, Unwatched};
use descant_train::score;

use crate::golden::{folder, json, max_difference, read, relative_norm, values};

const EXPERTS: usize = 6;

fn model() -> GptOss {
    GptOss::load(&folder("parity-b"), &Device::flex()).expect("the golden model loads")
}

fn adapter(model: &GptOss, device: &Device) -> LoraAdapters {
    LoraAdapters::load_peft(&folder("parity-b/adapter"), &model.config, device).expect("the adapter loads")
}

fn batch(model: &GptOss, ids: &[Vec<u32>]) -> Batch {
    Batch::new(ids.iter().map(Vec::as_slice), model.config.vocab_size).expect("valid")
}

/// The key of a site's factor in a PEFT file.
fn key(site: Site, which: &str) -> String {
    let place = match site.kind {
        SiteKind::Router => "mlp.router".to_owned(),
        SiteKind::GateUp => "mlp.experts.base_layer".to_owned(),
        SiteKind::Down => "mlp.experts".to_owned(),
        attention => format!("self_attn.{}", attention.name()),
    };
    format!("base_model.model.model.layers.{}.{place}.lora_{which}.weight", site.layer)
}

/// Our gradient of B in the file's order: column j * E + e.
fn file_order_b(ours: &[f32], [n, d_out, rank]: [usize; 3]) -> Vec<f32> {
    let mut file = vec![0.0; ours.len()];
    for e in 0..n {
        for o in 0..d_out {
            for j in 0..rank {
                file[o * rank * n + j * n + e] = ours[(e * d_out + o) * rank + j];
            }
        }
    }
    file
}

struct Noting<'a> {
    inner: &'a LoraAdapters,
    experts: RefCell<Vec<Vec<i64>>>,
}

impl Overlay for Noting<'_> {
    fn delta(&self, site: Site, x: &Tensor<2>, groups: &Groups) -> Option<Tensor<2>> {
        self.inner.delta(site, x, groups)
    }

    fn routed(&self, _layer: usize, _logits: &Tensor<2>, routing: &Routing) {
        self.experts.borrow_mut().push(routing.experts.clone().into_data().iter::<i64>().collect());
    }
}

#[test]
fn logits_and_routing_are_those_of_transformers() {
    let (model, case) = (model(), read("parity-b/case.safetensors"));
    let lora = adapter(&model, &Device::flex());
    let noting = Noting { inner: &lora, experts: RefCell::default() };
    let batch = batch(&model, &case["input_ids"].sequences());
    let adapted = values(model.logits(model.hidden(&batch, &noting)));
    assert!(max_difference(&adapted, &case["lora.logits"].floats) <= 1e-4);
    for (layer, experts) in noting.experts.into_inner().iter().enumerate() {
        let mut golden = case[&format!("router.{layer}.indices")].ints.clone();
        let mut ours = experts.clone();
        // The order among the chosen has no meaning; the choice has.
        for chosen in [&mut golden, &mut ours] {
            chosen.chunks_exact_mut(4).for_each(<[i64]>::sort_unstable);
        }
        assert_eq!(ours, golden, "layer {layer}");
    }
}

#[test]
fn the_gradient_of_every_kind_of_site_is_that_of_torch() {
    let (model, case, expected) =
        (model(), read("parity-b/case.safetensors"), json("parity-b/expected.json"));
    let lora = adapter(&model, &Device::flex().autodiff());
    let ids = case["input_ids"].sequences();
    let length = ids[0].len();
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    for (i, &label) in case["labels"].ints.iter().enumerate() {
        if i % length > 0 && label != -100 {
            rows.push(i - 1);
            targets.push(label as u32);
        }
    }
    let loss = model.token_losses(model.hidden(&batch(&model, &ids), &lora), &rows, &targets).mean();
    let value = f64::from(values(loss.clone().inner())[0]);
    assert!((value - expected["lora_loss"].as_f64().expect("a number")).abs() <= 1e-5, "{value}");
    let grads = loss.backward();
    let mut kinds = std::collections::BTreeSet::new();
    for (site, pair) in lora.pairs() {
        let a = values(pair.a.grad(&grads).expect("a gradient"));
        let b = file_order_b(&values(pair.b.grad(&grads).expect("a gradient")), pair.b.dims());
        for (which, gradient) in [("A", a), ("B", b)] {
            let key = format!("grad.{}", key(*site, which));
            let difference = relative_norm(&gradient, &case[&key].floats);
            assert!(difference <= 1e-4, "{key}: {difference:e}");
        }
        assert!(!site.kind.is_expert() || pair.a.dims()[0] == EXPERTS);
        kinds.insert(site.kind);
    }
    assert_eq!(kinds.len(), SiteKind::ALL.len(), "every kind was compared");
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    let (model, case, expected) =
        (model(), read("parity-b/case.safetensors"), json("parity-b/expected.json"));
    let lora = adapter(&model, &Device::flex());
    let golden: Vec<u32> = serde_json::from_value(expected["greedy"]["lora"].clone()).expect("ids");
    let request = Request::greedy(case["prompt"].sequences().concat(), golden.len());
    let options = GenerateOptions::default();
    let out = model.generate(&[request], &lora, &options, &mut Unwatched).expect("generates");
    assert_eq!(out[0].ids, golden);
}

#[test]
fn a_saved_adapter_scores_identically() {
    let (model, case) = (model(), read("parity-b/case.safetensors"));
    let lora = adapter(&model, &Device::flex());
    let dir = tempfile::tempdir().expect("a folder");
    let saved = dir.path().join("adapter");
    lora.save_peft(&saved, &model.config, "parity-b").expect("saves");
    let again = LoraAdapters::load_peft(&saved, &model.config, &Device::flex()).expect("loads");
    let ids = &case["input_ids"].sequences()[0];
    let bits = |lora: &LoraAdapters| -> Vec<u32> {
        score(&model, lora, ids, None).expect("scores").logprobs.iter().map(|p| p.to_bits()).collect()
    };
    assert_eq!(bits(&lora), bits(&again));
}

#[test]
fn swapping_the_order_of_b_is_noticed() {
    let (model, case) = (model(), read("parity-b/case.safetensors"));
    let mut lora = adapter(&model, &Device::flex());
    lora.update(|_, tensor| {
        let [n, rows, cols] = tensor.dims();
        // B of a wrong reader: expert and rank exchanged in the columns.
        if n == EXPERTS && cols == 3 { tensor.reshape([rows, cols, n]).permute([2, 0, 1]) } else { tensor }
    });
    let batch = batch(&model, &case["input_ids"].sequences());
    let wrong = values(model.logits(model.hidden(&batch, &lora)));
    assert!(max_difference(&wrong, &case["lora.logits"].floats) > 1e-2);
}
