//! What exports read: GGUF files that are read back, and adapters and bases.

use std::ops::ControlFlow;
use std::path::Path;

use descant_export::{Form, Job, read_gguf_lora, unpack_gguf};
use descant_model::Config;
use libfuzzer_sys::arbitrary::Unstructured;

use super::models::changed;
use super::{Opened, fixture, fixtures, folder, put};

/// A file that claims to be a model's or an adapter's for llama.cpp.
pub(super) fn gguf() -> Opened {
    let dir = folder();
    let golden = fixtures().join("golden/export");
    let model = Config::from_dir(&golden.join("base")).expect("a good model");
    let text = serde_json::from_slice(&fixture("golden/export/base/config.json")).expect("JSON");
    let path = dir.join("x.gguf");
    let door = move |bytes: &[u8]| {
        put(&path, bytes);
        if let Ok(sites) = read_gguf_lora(&path, &model) {
            let fits = |(site, factors): (&descant_model::Site, &descant_lora::peft::Factors)| {
                factors.a.len() == factors.rank * model.site_dims(site.kind).d_in * model.site_dims(site.kind).n_matrices
            };
            assert!(sites.iter().all(fits));
        }
        drop(unpack_gguf(&path, &model, &text));
        assert_eq!(descant_files::list(&dir).expect("a folder"), ["x.gguf"], "nothing is left");
    };
    let small = "golden/export/expected/all.lora.gguf";
    (Box::new(door), vec![fixture(small), fixture("golden/export/expected/attn.gguf")])
}

/// Bytes choose the form and one change of the adapter or of the base: whatever is refused leaves nothing.
pub(super) fn export() -> Opened {
    const FORMS: [Form; 5] = [Form::PeftFolded, Form::MlxAdapter, Form::GgufLora, Form::Bf16, Form::Mxfp4];
    let dir = folder();
    let copy = |from: &str, to: &str, names: &[&str]| {
        descant_files::make(&dir.join(to)).expect("a new folder");
        for name in names {
            put(&dir.join(to).join(name), &fixture(&format!("golden/export/{from}/{name}")));
        }
    };
    copy("base", "base", &["config.json", "model.safetensors"]);
    copy("adapter-all", "adapter", &["adapter_config.json", "adapter_model.safetensors"]);
    let files = ["adapter/adapter_model.safetensors", "base/model.safetensors"];
    let good = files.map(|file| std::fs::read(dir.join(file)).expect("written just now"));
    let door = move |bytes: &[u8]| {
        let mut choice = Unstructured::new(bytes);
        let form = *choice.choose(&FORMS).unwrap_or(&Form::Mxfp4);
        let at = usize::from(choice.arbitrary::<bool>().unwrap_or_default());
        let file = changed(&good[at], &mut choice).unwrap_or_else(|_| bytes.to_vec());
        put(&dir.join(files[at]), &file);
        run(&dir, form);
        put(&dir.join(files[at]), &good[at]);
    };
    (Box::new(door), (0..10).map(|n| vec![n; 12]).collect())
}

fn run(dir: &Path, form: Form) {
    let (adapter, model, out) = (dir.join("adapter"), dir.join("base"), dir.join("out"));
    let job = Job { allow_loss: true, ..Job::new(&adapter, &model, form, &out) };
    let done = descant_export::export(&job, &mut |_| ControlFlow::Continue(()));
    let names = descant_files::list(dir).expect("a folder");
    let Ok(report) = done else {
        assert_eq!(names, ["adapter", "base"], "nothing is left");
        return;
    };
    for file in &report.files {
        assert_eq!(out.join(&file.name).metadata().expect("written").len(), file.bytes, "{}", file.name);
    }
    descant_files::remove(&out).expect("our own");
}
