//! The judge judged: exports as they are pass, and one that is damaged does not.

use std::path::PathBuf;

use descant_export::export;
use descant_testkit::shard::{file_of, tensors_of};

use super::*;

const CPU: Place<'_> = Place { device: "cpu", limit: None };

#[test]
fn equal_distributions_do_not_diverge_and_others_do() {
    let p = [0.5_f32.ln(), 0.25_f32.ln(), 0.25_f32.ln()];
    let q = [0.25_f32.ln(), 0.5_f32.ln(), 0.25_f32.ln()];
    assert!(divergence(&p, &p).abs() < 1e-12);
    assert!((divergence(&p, &q) - 0.25 * 2.0_f64.ln()).abs() < 1e-6);
    assert_eq!((likeliest(&p), likeliest(&q)), (0, 1));
}

#[test]
fn what_is_good_enough_depends_on_the_form() {
    assert_eq!(reason(true, 1e-4, Some(1.0)), None);
    assert_eq!(reason(false, 1e-2, Some(0.96)), None);
    assert_eq!(reason(true, 1e-4, None), None, "an adapter that gains nothing has nothing to lose");
    assert!(reason(true, 2e-3, Some(1.0)).unwrap().contains("diverges"));
    assert!(reason(false, 1e-2, Some(0.94)).unwrap().contains("94.0 %"));
    assert!(reason(false, f64::NAN, Some(1.0)).unwrap().contains("not a number"));
}

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(name)
}

/// Sets the numbers of tensors to zero in a file of safetensors, or the second half of another file.
fn damage(path: &Path, tensor: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    if tensor.is_empty() {
        let n = bytes.len();
        bytes[n / 2..].fill(0);
    } else {
        let mut tensors = tensors_of(&bytes);
        let named: Vec<_> = tensors.iter_mut().filter(|(name, _)| name.contains(tensor)).collect();
        assert!(!named.is_empty(), "{tensor}");
        for (_, (_, _, numbers)) in named {
            numbers.fill(0);
        }
        bytes = file_of(&tensors);
    }
    descant_files::write_atomic(path, &bytes).unwrap();
}

#[test]
fn every_form_is_proved_and_a_damaged_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (adapter, model) = (fixture("golden/export/adapter-attn"), fixture("golden/export/base"));
    let rows = dir.path().join("rows.jsonl");
    let held_out = std::fs::read_to_string(fixture("tiny-gpt-oss/data/held-out.jsonl")).unwrap();
    let one = held_out.lines().next().unwrap();
    descant_files::write_atomic(&rows, one.as_bytes()).unwrap();
    for (form, file, tensor) in [
        (Form::Peft, "adapter_model.safetensors", "v_proj.lora_B"),
        (Form::PeftFolded, "adapter_model.safetensors", "v_proj.lora_B"),
        (Form::MlxAdapter, "adapters.safetensors", "v_proj.lora_b"),
        (Form::GgufLora, "adapter.gguf", ""),
        (Form::Bf16, "model.safetensors", "1.self_attn.v_proj.weight"),
        (Form::Mxfp4, "model.safetensors", "1.mlp.experts.down_proj_blocks"),
        (Form::Gguf, "model.gguf", ""),
    ] {
        let out = dir.path().join(form.name());
        let job = Job::new(&adapter, &model, form, &out);
        let go = || ControlFlow::Continue(());
        let report = export(&job, &mut |_| go()).unwrap();
        let proved =
            || prove(&job, &report, &rows, Settings::default(), CPU, &go, Talk::SILENT).unwrap().unwrap();
        let proof = proved();
        assert!(proof.passed && proof.kl < 1e-4 && proof.top1 > 0.9, "{}: {proof:?}", form.name());
        assert_eq!((proof.rows, proof.loss_base > 0.0), (1, true));
        damage(&out.join(file), tensor);
        let proof = proved();
        assert!(!proof.passed && proof.reason.is_some(), "{}: {proof:?}", form.name());
        let left = descant_files::list(&out).unwrap();
        assert!(left.iter().all(|name| !descant_files::is_temporary(name)), "{left:?}");
    }
}

#[test]
fn a_proof_that_is_stopped_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let (adapter, model) = (fixture("golden/export/adapter-attn"), fixture("golden/export/base"));
    let out = dir.path().join("out");
    let job = Job::new(&adapter, &model, Form::PeftFolded, &out);
    let report = export(&job, &mut |_| ControlFlow::Continue(())).unwrap();
    let rows = fixture("tiny-gpt-oss/data/held-out.jsonl");
    let stopped = || ControlFlow::Break(());
    let proof = prove(&job, &report, &rows, Settings::default(), CPU, &stopped, Talk::SILENT).unwrap();
    assert_eq!(proof, None);
}
