//! Generation: the batch, the stop ids and the cache must not change what a prompt gets.

use std::path::Path;

use burn::tensor::Device;
use descant_model::{Bare, Batch, GenerateOptions, GptOss, Sampling, StopReason, stop_ids};

fn dir() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden/parity-a")
}

fn model() -> GptOss {
    GptOss::load(&dir(), &Device::flex()).expect("the golden model loads")
}

fn options(max_new_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_new_tokens, stop_ids: Vec::new(), sampling: Sampling::Greedy }
}

/// Greedy by running the whole sequence again for every token.
fn without_cache(model: &GptOss, prompt: &[u32], n: usize) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    for _ in 0..n {
        let batch = Batch::new([ids.as_slice()], model.config.vocab_size).expect("valid");
        let logits: Vec<f32> =
            model.logits(model.hidden(&batch, &Bare)).into_data().try_to_vec().expect("f32");
        let last = &logits[logits.len() - model.config.vocab_size..];
        let best = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).expect("not empty");
        ids.push(best as u32);
    }
    ids.split_off(prompt.len())
}

#[test]
fn cached_batched_generation_equals_running_everything_again() {
    let model = model();
    let prompts: Vec<Vec<u32>> = vec![vec![5], (0..23).map(|i| i * 11 % 512).collect(), vec![400, 3, 77]];
    let out = model.generate(&prompts, &Bare, &options(20), &mut |_| {}).expect("generates");
    for (prompt, out) in prompts.iter().zip(&out) {
        assert_eq!(out.ids, without_cache(&model, prompt, 20));
        assert_eq!(out.stop, StopReason::Length);
    }
}

#[test]
fn a_stop_id_ends_its_own_sequence_only() {
    let model = model();
    let prompts: Vec<Vec<u32>> = vec![vec![5], vec![400, 3, 77]];
    let free = model.generate(&prompts, &Bare, &options(12), &mut |_| {}).expect("generates");
    let stop = free[0].ids[4];
    let mut with_stop = options(12);
    with_stop.stop_ids = vec![stop];
    let out = model.generate(&prompts, &Bare, &with_stop, &mut |_| {}).expect("generates");
    let end = free[0].ids.iter().position(|&id| id == stop).expect("it is there");
    assert_eq!(out[0].ids, free[0].ids[..=end]);
    assert_eq!(out[0].stop, StopReason::StopToken);
    assert!(!free[1].ids.contains(&stop) && out[1] == free[1], "the other goes on");
}

#[test]
fn the_stop_ids_are_those_of_generation_config() {
    assert_eq!(stop_ids(&dir()).expect("reads"), [511]);
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-gpt-oss");
    assert_eq!(stop_ids(&tiny).expect("reads"), [1519, 1516, 1529]);
}

#[test]
fn nothing_asked_is_nothing_done() {
    let model = model();
    assert!(model.generate(&[], &Bare, &options(3), &mut |_| {}).expect("generates").is_empty());
    let out = model.generate(&[vec![1]], &Bare, &options(0), &mut |_| {}).expect("generates");
    assert!(out[0].ids.is_empty() && out[0].stop == StopReason::Length);
    assert!(model.generate(&[vec![]], &Bare, &options(3), &mut |_| {}).is_err());
}
