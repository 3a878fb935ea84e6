//! The folder of a checkpoint. Damage is found by the hashes of the manifest; so that the parsers behind them get
//! something too, every file is also damaged by somebody who computes the hashes again.

use burn::tensor::Device;
use descant_lora::{LoraAdapters, LoraConfig};
use descant_model::GptOss;
use descant_testkit::door::{Limits, check};
use descant_testkit::micro::{Micro, Options};
use descant_testkit::scratch;
use descant_train::checkpoint::{Progress, Store};
use descant_train::{TrainConfig, Trainer};
use serde_json::Value;

use crate::{put, turn};

/// The manifest, as if `bytes` had always been the file `name`.
fn manifest_with(good: &[u8], name: &str, bytes: &[u8]) -> Vec<u8> {
    let line = good.split(|byte| *byte == b'\n').next().unwrap();
    let mut manifest: Value = serde_json::from_slice(line).unwrap();
    for file in manifest["files"].as_array_mut().unwrap() {
        if file["name"] == name {
            file["bytes"] = bytes.len().into();
            file["sha256"] = descant_files::sha256(bytes).into();
        }
    }
    summed(manifest.to_string().as_bytes())
}

/// A line and its sum.
fn summed(line: &[u8]) -> Vec<u8> {
    [line, b"\n", descant_files::sha256(line).as_bytes(), b"\n"].concat()
}

#[test]
fn checkpoints() {
    let _turn = turn();
    let dir = scratch();
    let micro = Micro::write(dir.path(), &Options::default()).unwrap();
    let base = GptOss::load(&micro.model, &Device::flex()).unwrap();
    let lora = LoraConfig { r: 1, alpha: 2.0, targets: vec!["q_proj".to_owned()] };
    let adapters = LoraAdapters::init(&base.config, &lora, 1, &Device::flex().autodiff()).unwrap();
    let trainer = Trainer::new(&base, adapters, TrainConfig::default()).unwrap();
    let run = dir.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let store = Store { run: run.clone(), identity: vec![("a".to_owned(), "b".to_owned())], keep: 2 };
    let logs = [("metrics.jsonl".to_owned(), 0)].into();
    store
        .save(trainer.adapters(), &trainer.state().unwrap(), &Progress::default(), logs, &mut |_| ())
        .unwrap();
    let folder = run.join("checkpoints/step-000000");
    let names = ["manifest.json", "state.json", "adapter.safetensors", "optimizer.safetensors"];
    let good = names.map(|name| std::fs::read(folder.join(name)).unwrap());

    // The whole folder again: one that is not whole is put aside when it is met.
    let write = |damaged: &[(&str, &[u8])]| {
        let _ = std::fs::remove_dir_all(run.join("checkpoints"));
        std::fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in names.iter().zip(&good) {
            let other = damaged.iter().find(|(damaged, _)| damaged == name);
            put(&folder.join(name), other.map_or(bytes, |(_, bytes)| bytes));
        }
    };
    let taken = || store.newest(trainer.adapters(), &mut |_| ()).is_ok_and(|found| found.is_some());
    let limits = Limits::default();
    for (name, bytes) in names.iter().zip(&good) {
        check(&format!("checkpoint, {name}"), bytes, limits, |bytes| {
            write(&[(name, bytes)]);
            taken()
        });
        let resigned = |bytes: &[u8]| match *name {
            "manifest.json" => write(&[(name, &summed(bytes))]),
            _ => write(&[(name, bytes), ("manifest.json", &manifest_with(&good[0], name, bytes))]),
        };
        let line =
            if *name == "manifest.json" { bytes.split(|b| *b == b'\n').next().unwrap() } else { bytes };
        check(&format!("checkpoint, {name} with its hash"), line, limits, |bytes| {
            resigned(bytes);
            taken()
        });
    }
}
