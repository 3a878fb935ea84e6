//! The base against transformers and PEFT, which computed the values under `fixtures/golden`: logits, and greedy tokens.
//!
//! With adapters the same models are compared in descant-train, which has what reads and trains them.

use burn::tensor::Device;
use descant_model::{Bare, Batch, GenerateOptions, GptOss, Request, Unwatched};
use descant_testkit::golden::{Golden, folder, json, max_difference, read};

/// Logits of f32 models; another order of sums differs by a tenth of this.
const TOLERANCE: f32 = 1e-4;

fn load(name: &str) -> GptOss {
    GptOss::load(&folder(name), &Device::flex()).expect("the golden model loads")
}

fn logits(model: &GptOss, ids: &Golden) -> Vec<f32> {
    let ids = ids.sequences();
    let batch = Batch::new(ids.iter().map(Vec::as_slice), model.config.vocab_size).expect("valid ids");
    model.logits(model.hidden(&batch, &Bare)).into_data().try_to_vec().expect("f32")
}

#[test]
fn logits_are_those_of_transformers() {
    for (name, ids, expected) in [
        (
            "parity-a",
            &read("parity-a/inputs.safetensors")["input_ids"],
            &read("parity-a/base.safetensors")["logits"],
        ),
        (
            "parity-b",
            &read("parity-b/case.safetensors")["input_ids"],
            &read("parity-b/case.safetensors")["base.logits"],
        ),
        (
            "peft_tiny/base",
            &read("peft_tiny/io.safetensors")["input_ids"],
            &read("peft_tiny/io.safetensors")["logits_base"],
        ),
    ] {
        let ours = logits(&load(name), ids);
        let difference = max_difference(&ours, &expected.floats);
        assert!(difference <= TOLERANCE, "{name}: {difference:e}");
        // The control: the same logits a row further on are others.
        let width = expected.shape.last().copied().expect("an axis");
        let moved = max_difference(&ours[width..], &expected.floats[..expected.floats.len() - width]);
        assert!(moved > 100.0 * TOLERANCE, "{name}: {moved:e}");
    }
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    for (name, prompts) in [("parity-a", "inputs"), ("parity-b", "case")] {
        let prompt = read(&format!("{name}/{prompts}.safetensors"))["prompt"].sequences().concat();
        let expected = json(&format!("{name}/expected.json"));
        let golden: Vec<u32> = serde_json::from_value(expected["greedy"]["base"].clone()).expect("ids");
        // A second prompt beside it, so that slots and lengths differ.
        let requests = [prompt[..prompt.len() / 2].to_vec(), prompt];
        let requests = requests.map(|ids| Request::greedy(ids, golden.len()));
        let out = load(name)
            .generate(&requests, &Bare, &GenerateOptions::default(), &mut Unwatched)
            .expect("generates");
        assert_eq!(out[1].ids, golden, "{name}");
        assert_ne!(out[0].ids, golden, "{name}: another prompt has another reply");
    }
}
