//! What an export reads: adapter, base, tokenizer, and GGUF files that are read back. Whatever is refused leaves nothing.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use descant_export::{Form, Job, export, read_gguf_lora, unpack_gguf};
use descant_model::Config;
use descant_testkit::door::{Limits, check};
use descant_testkit::shard::head_and_data;
use descant_testkit::{nf4, scratch, shard};
use tempfile::TempDir;

use crate::{fixtures, put, turn};

/// A base and an adapter that may be damaged, and where their export goes.
struct Subject {
    dir: TempDir,
}

impl Subject {
    /// The golden set's.
    fn golden(adapter: &str) -> Self {
        let subject = Self { dir: scratch() };
        for (folder, from) in [("base", "base".to_owned()), ("adapter", format!("adapter-{adapter}"))] {
            let from = fixtures().join("golden/export").join(from);
            std::fs::create_dir(subject.path(folder)).unwrap();
            for name in descant_files::list(&from).unwrap() {
                put(&subject.path(folder).join(&name), &std::fs::read(from.join(&name)).unwrap());
            }
        }
        subject
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Exports, and sees that the folder is whole or absent.
    fn export(&self, form: Form) -> bool {
        let (adapter, model, out) = (self.path("adapter"), self.path("base"), self.path("out"));
        let job = Job { allow_loss: true, ..Job::new(&adapter, &model, form, &out) };
        let done = export(&job, &mut |_| ControlFlow::Continue(()));
        let names = descant_files::list(self.dir.path()).unwrap();
        let Ok(report) = done else {
            assert_eq!(names, ["adapter", "base"], "nothing is left");
            return false;
        };
        assert_eq!(names, ["adapter", "base", "out"]);
        for file in &report.files {
            assert_eq!(out.join(&file.name).metadata().unwrap().len(), file.bytes, "{}", file.name);
        }
        std::fs::remove_dir_all(&out).unwrap();
        true
    }

    /// Damages one file, whole or its first `head` bytes alone.
    fn check(&self, name: &str, file: &str, head: Option<usize>, form: Form) {
        let path = self.path(file);
        let good = std::fs::read(&path).unwrap();
        let (damaged, kept) = good.split_at(head.unwrap_or(good.len()));
        // Two threads' experts, in f32 and packed, and the file itself several times over.
        let limits = Limits {
            heap: Limits::default().heap + 8 * good.len(),
            heap_factor: 16,
            busy: 4 * Limits::default().busy,
            ..Limits::default()
        };
        check(name, damaged, limits, |bytes| {
            put(&path, &[bytes, kept].concat());
            self.export(form)
        });
        put(&path, &good);
    }
}

fn length_of_head(path: &Path) -> usize {
    head_and_data(&std::fs::read(path).unwrap()).0.len()
}

#[test]
fn adapters_through_an_export() {
    let _turn = turn();
    let subject = Subject::golden("mixed");
    subject.check("export: adapter_config.json", "adapter/adapter_config.json", None, Form::PeftFolded);
    let tensors = "adapter/adapter_model.safetensors";
    let head = length_of_head(&subject.path(tensors));
    subject.check("export: adapter, header", tensors, Some(head), Form::Mxfp4);
    subject.check("export: adapter, file", tensors, None, Form::GgufLora);
}

#[test]
fn bases_through_an_export() {
    let _turn = turn();
    let subject = Subject::golden("all");
    let tensors = "base/model.safetensors";
    let head = length_of_head(&subject.path(tensors));
    subject.check("export: base, header", tensors, Some(head), Form::Bf16);
    subject.check("export: base, config.json", "base/config.json", None, Form::Mxfp4);
    subject.check("export: base, tokenizer.json", "base/tokenizer.json", None, Form::Gguf);
    subject.check("export: base, tokenizer_config.json", "base/tokenizer_config.json", None, Form::Gguf);
}

#[test]
fn bases_of_bitsandbytes_through_an_export() {
    let _turn = turn();
    let subject = Subject { dir: scratch() };
    let from = fixtures().join("golden/peft_tiny/adapter");
    for folder in ["base", "adapter"] {
        std::fs::create_dir(subject.path(folder)).unwrap();
    }
    for name in descant_files::list(&from).unwrap() {
        put(&subject.path("adapter").join(&name), &std::fs::read(from.join(&name)).unwrap());
    }
    let model = nf4::Model::tiny();
    put(&subject.path("base/config.json"), model.config.to_string().as_bytes());
    let tensors = "base/model.safetensors";
    put(&subject.path(tensors), &shard::file_of(&model.packed));
    let head = length_of_head(&subject.path(tensors));
    subject.check("export: NF4, header", tensors, Some(head), Form::Bf16);
}

/// Files of llama.cpp's, as `--prove` reads them back.
#[test]
fn gguf_files() {
    let _turn = turn();
    let dir = scratch();
    let golden = fixtures().join("golden/export");
    let config = Config::from_dir(&golden.join("base")).unwrap();
    let text = std::fs::read(golden.join("base/config.json")).unwrap();
    let text: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let path = dir.path().join("x.gguf");
    for (name, kept) in [("all.lora.gguf", 0), ("attn.gguf", 200_000)] {
        let good = std::fs::read(golden.join("expected").join(name)).unwrap();
        let (damaged, kept) = good.split_at(good.len() - kept);
        let limits = Limits { heap: Limits::default().heap + 8 * good.len(), ..Limits::default() };
        check(name, damaged, limits, |bytes| {
            put(&path, &[bytes, kept].concat());
            let taken = match name {
                "attn.gguf" => unpack_gguf(&path, &config, &text).is_ok(),
                _ => read_gguf_lora(&path, &config).is_ok(),
            };
            assert_eq!(descant_files::list(dir.path()).unwrap(), ["x.gguf"], "nothing is left");
            taken
        });
    }
}
