//! What is refused before anything is written, and what is left when writing fails.

use std::path::Path;

use descant_export::{Error, Experts, Form, Job, export};

use crate::support::{exported, golden, json};

/// A copy of an adapter with a change to its bytes.
fn changed(dir: &Path, change: impl Fn(&mut Vec<u8>)) -> std::path::PathBuf {
    let adapter = dir.join("adapter");
    std::fs::create_dir(&adapter).unwrap();
    std::fs::copy(golden("adapter-attn/adapter_config.json"), adapter.join("adapter_config.json")).unwrap();
    let mut bytes = std::fs::read(golden("adapter-attn/adapter_model.safetensors")).unwrap();
    change(&mut bytes);
    descant_files::write_atomic(&adapter.join("adapter_model.safetensors"), &bytes).unwrap();
    adapter
}

fn run(adapter: &Path, model: &Path, form: Form, out: &Path, force: bool) -> descant_export::Result<()> {
    let job = Job { force, ..Job::new(adapter, model, form, out) };
    export(&job, &mut |_| std::ops::ControlFlow::Continue(())).map(drop)
}

#[test]
fn nothing_is_left_of_an_export_of_a_wrong_adapter() {
    for form in Form::ALL {
        let dir = tempfile::tempdir().unwrap();
        // The last number becomes one that is not.
        let adapter = changed(dir.path(), |bytes| {
            let at = bytes.len() - 4;
            bytes[at..].copy_from_slice(&f32::NAN.to_le_bytes());
        });
        let error = run(&adapter, &golden("base"), form, &dir.path().join("out"), false).unwrap_err();
        assert!(error.to_string().contains("not finite"), "{error}");
        assert_eq!(descant_files::list(dir.path()).unwrap(), ["adapter"]);
    }
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss"));
    let error = run(&golden("adapter-all"), other, Form::Bf16, &dir.path().join("out"), false).unwrap_err();
    assert!(matches!(error, Error::Adapter(_)), "{error}");
    assert!(descant_files::list(dir.path()).unwrap().is_empty());
}

#[test]
fn a_sum_that_is_infinite_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = changed(dir.path(), |bytes| {
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        for number in bytes[header..].as_chunks_mut::<4>().0 {
            *number = 1e30_f32.to_le_bytes();
        }
    });
    for form in [Form::Bf16, Form::Mxfp4, Form::Gguf] {
        let error = run(&adapter, &golden("base"), form, &dir.path().join("out"), false).unwrap_err();
        assert!(matches!(error, Error::NotFinite { .. }), "{error}");
    }
    assert_eq!(descant_files::list(dir.path()).unwrap(), ["adapter"]);
}

#[test]
fn what_stands_at_the_target_stays_unless_it_is_an_export_and_may_go() {
    let dir = tempfile::tempdir().unwrap();
    let (base, adapter, out) = (golden("base"), golden("adapter-attn"), dir.path().join("out"));
    run(&adapter, &base, Form::PeftFolded, &out, false).unwrap();
    assert!(matches!(run(&adapter, &base, Form::Bf16, &out, false), Err(Error::Exists { .. })));
    assert!(out.join("adapter_model.safetensors").exists());
    run(&adapter, &base, Form::Bf16, &out, true).unwrap();
    assert!(out.join("model.safetensors").exists() && !out.join("adapter_model.safetensors").exists());
    // A folder of something else stays, whatever is asked for.
    let other = dir.path().join("photos");
    std::fs::create_dir(&other).unwrap();
    descant_files::write_atomic(&other.join("x"), b"x").unwrap();
    assert!(matches!(run(&adapter, &base, Form::Bf16, &other, true), Err(Error::NotReplaced { .. })));
    assert_eq!(std::fs::read(other.join("x")).unwrap(), b"x");
    // So does what the export is made of.
    let source = dir.path().join("folded");
    run(&adapter, &base, Form::PeftFolded, &source, false).unwrap();
    assert!(matches!(run(&source, &base, Form::Bf16, &source, true), Err(Error::NotReplaced { .. })));
    let file = dir.path().join("x.gguf");
    run(&adapter, &base, Form::Gguf, &file, false).unwrap();
    assert!(matches!(run(&adapter, &base, Form::GgufLora, &file, false), Err(Error::Exists { .. })));
    run(&adapter, &base, Form::GgufLora, &file, true).unwrap();
    let names = descant_files::list(dir.path()).unwrap();
    assert!(names.iter().all(|name| !descant_files::is_temporary(name)), "{names:?}");
}

#[test]
fn a_form_that_cannot_say_what_the_model_is_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    std::fs::create_dir(&base).unwrap();
    for name in descant_files::list(&golden("base")).unwrap() {
        std::fs::copy(golden("base").join(&name), base.join(&name)).unwrap();
    }
    let with = |key: &str, value: serde_json::Value| {
        let mut config = json(&golden("base/config.json"));
        config[key] = value;
        descant_files::write_atomic(&base.join("config.json"), config.to_string().as_bytes()).unwrap();
        run(&golden("adapter-attn"), &base, Form::Gguf, &dir.path().join("out"), false)
            .unwrap_err()
            .to_string()
    };
    assert!(with("swiglu_limit", 5.0.into()).contains("swiglu_limit"));
    let all = serde_json::json!(["full_attention", "full_attention"]);
    assert!(with("layer_types", all).contains("alternate"));
    assert!(with("max_position_embeddings", serde_json::Value::Null).contains("max_position_embeddings"));
    let out = dir.path().join("out");
    let error = exported("attn", Form::Mxfp4, Experts::Bf16, &out).unwrap_err();
    assert!(error.to_string().contains("bf16"), "{error}");
    let error = exported("attn", Form::Bf16, Experts::Feedback, &dir.path().join("x.gguf")).unwrap_err();
    assert!(error.to_string().contains(".gguf"), "{error}");
    assert_eq!(descant_files::list(dir.path()).unwrap(), ["base"]);
}
