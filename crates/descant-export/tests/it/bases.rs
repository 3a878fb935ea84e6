//! Bases that are not MXFP4: bitsandbytes' NF4, and floats.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use descant_export::{Error, Form, Job, Report, export};
use descant_testkit::nf4;
use descant_testkit::shard::{Dtype, Tensors, f32s, file_of};
use half::bf16;

use crate::support::{golden, json, read};

/// Writes a model's folder.
fn base(dir: &Path, name: &str, config: &serde_json::Value, tensors: &Tensors) -> PathBuf {
    let base = dir.join(name);
    std::fs::create_dir(&base).unwrap();
    descant_files::write_atomic(&base.join("config.json"), config.to_string().as_bytes()).unwrap();
    descant_files::write_atomic(&base.join("model.safetensors"), &file_of(tensors)).unwrap();
    base
}

/// The same numbers as NF4 packs them and as floats.
fn both(dir: &Path) -> (PathBuf, PathBuf) {
    let nf4::Model { config, packed, unpacked } = nf4::Model::tiny();
    let mut plain = config.clone();
    plain.as_object_mut().unwrap().remove("quantization_config");
    (base(dir, "nf4", &config, &packed), base(dir, "floats", &plain, &unpacked))
}

fn run(model: &Path, form: Form, out: &Path, allow_loss: bool) -> descant_export::Result<Report> {
    let adapter = golden("../peft_tiny/adapter");
    let job = Job { allow_loss, ..Job::new(&adapter, model, form, out) };
    export(&job, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn an_nf4_base_merges_to_the_bytes_of_its_own_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let (packed, floats) = both(dir.path());
    let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
    let report = run(&packed, Form::Bf16, &a, false).unwrap();
    run(&floats, Form::Bf16, &b, false).unwrap();
    assert_eq!(read(&a.join("model.safetensors")), read(&b.join("model.safetensors")));
    assert!(json(&a.join("config.json")).get("quantization_config").is_none());
    assert!(report.survival.unwrap().along > 0.9 && report.weights.iter().all(|row| row.survival.is_some()));
}

#[test]
fn an_nf4_base_is_packed_as_mxfp4_only_on_request_and_with_its_loss() {
    let dir = tempfile::tempdir().unwrap();
    let (packed, _) = both(dir.path());
    let out = dir.path().join("out");
    for form in [Form::Mxfp4, Form::Gguf] {
        let error = run(&packed, form, &out, false).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains("NF4") && error.contains("bf16") && error.contains("--allow-loss"), "{error}");
        assert_eq!(descant_files::list(dir.path()).unwrap(), ["floats", "nf4"]);
    }
    let report = run(&packed, Form::Mxfp4, &out, true).unwrap();
    let loss: Vec<f64> = report.weights.iter().filter_map(|row| row.repacked_error).collect();
    let errors: Vec<f64> = report.weights.iter().filter_map(|row| Some(row.survival?.error)).collect();
    assert!(loss.iter().chain(&errors).any(|error| *error > 0.05), "{loss:?} {errors:?}");
    assert_eq!(json(&out.join("config.json"))["quantization_config"]["quant_method"], "mxfp4");
}

#[test]
fn experts_that_were_never_mxfp4_are_packed_only_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let (_, floats) = both(dir.path());
    let out = dir.path().join("out");
    // An adapter on attention alone, so that no update reaches the experts.
    let error = run_attention(&floats, &out, false, dir.path()).unwrap_err();
    assert!(matches!(error, Error::Repacked { error, .. } if error > 5.0), "{error}");
    let report = run_attention(&floats, &out, true, dir.path()).unwrap();
    assert_eq!(report.weights.iter().filter(|row| row.repacked_error.is_some()).count(), 4);
}

/// As `run`, with the part of the adapter that is on attention.
fn run_attention(model: &Path, out: &Path, allow_loss: bool, dir: &Path) -> descant_export::Result<Report> {
    let adapter = dir.join("attention");
    if !adapter.exists() {
        let config = descant_model::Config::from_dir(model).unwrap();
        let mut sites = descant_lora::read(&golden("../peft_tiny/adapter"), &config).unwrap().sites;
        sites.retain(|site, _| !site.kind.is_expert());
        std::fs::create_dir(&adapter).unwrap();
        for (name, bytes) in descant_lora::peft::files(&config, "x", &sites).unwrap().1 {
            descant_files::write_atomic(&adapter.join(name), &bytes).unwrap();
        }
    }
    let job = Job { allow_loss, ..Job::new(&adapter, model, Form::Mxfp4, out) };
    export(&job, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn floats_that_came_from_mxfp4_are_packed_without_a_loss_and_back_to_their_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = golden("adapter-attn");
    let run = |model: &Path, form: Form, out: &Path| {
        let job = Job::new(&adapter, model, form, out);
        export(&job, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let [unpacked, packed] = ["unpacked", "packed"].map(|name| dir.path().join(name));
    run(&golden("base"), Form::Bf16, &unpacked);
    run(&unpacked, Form::Mxfp4, &packed);
    let (got, base) = (read(&packed.join("model.safetensors")), read(&golden("base/model.safetensors")));
    let mut blocks = 0;
    for (name, tensor) in got.iter().filter(|(name, _)| name.ends_with("_blocks")) {
        let off = tensor.bytes.iter().zip(&base[name].bytes).filter(|(a, b)| a != b).count();
        // A block may have two spellings of the same numbers.
        assert!(off * 20 < tensor.bytes.len(), "{name}: {off} of {}", tensor.bytes.len());
        blocks += 1;
    }
    assert_eq!(blocks, 4);
}

#[test]
fn a_base_in_f32_is_rounded_to_bf16_once_and_the_account_says_where_digits_were_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (_, floats) = both(dir.path());
    let out = dir.path().join("out");
    let report = run(&floats, Form::Bf16, &out, false).unwrap();
    let (got, base) = (read(&out.join("model.safetensors")), read(&floats.join("model.safetensors")));
    let name = "model.embed_tokens.weight";
    assert_eq!(base[name].dtype, Dtype::F32);
    let wanted: Vec<u16> = f32s(&base[name].bytes).into_iter().map(|x| bf16::from_f32(x).to_bits()).collect();
    assert_eq!(got[name].bf16(), wanted);
    assert!(report.rounded.iter().any(|rounded| rounded == name), "{:?}", report.rounded);
}
