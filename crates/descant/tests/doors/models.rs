//! A model directory: `config.json`, `generation_config.json`, the index and the shards.
//!
//! The model is a random one of half a megabyte with packed experts.

use burn::tensor::Device;
use descant_model::{Config, GptOss, stop_ids};
use descant_testkit::door::{Limits, check};
use tempfile::TempDir;

use crate::{fixtures, put, turn};

/// A copy of the model that may be damaged.
fn model() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        put(&dir.path().join(name), &std::fs::read(fixtures().join("golden/parity-b").join(name)).unwrap());
    }
    dir
}

/// Bytes of a file's header, with the eight that say its length.
fn header_of(file: &[u8]) -> usize {
    u64::from_le_bytes(file[..8].try_into().unwrap()) as usize + 8
}

#[test]
fn configurations() {
    let _turn = turn();
    let dir = model();
    for published in ["gpt-oss-20b", "gpt-oss-120b"] {
        let config = std::fs::read(fixtures().join(format!("configs/{published}.json"))).unwrap();
        check(published, &config, Limits::default(), |bytes| {
            Config::from_slice(bytes).is_ok_and(|config| {
                // What is taken must be usable.
                let _ = config.rope.inverse_frequencies(config.head_dim);
                true
            })
        });
    }
    let path = dir.path().join("generation_config.json");
    check("generation_config.json", br#"{"eos_token_id": [1519, 1516]}"#, Limits::default(), |bytes| {
        put(&path, bytes);
        stop_ids(dir.path()).is_ok()
    });
}

#[test]
fn shards() {
    let _turn = turn();
    let (dir, device) = (model(), Device::flex());
    let path = dir.path().join("model.safetensors");
    let weights = std::fs::read(&path).unwrap();
    // Damage of the weights themselves gives other numbers nearly always; the header is what parsers trip over.
    let (header, rest) = weights.split_at(header_of(&weights));
    let limits = Limits { heap: Limits::default().heap + 4 * rest.len(), ..Limits::default() };
    check("safetensors", header, limits, |head| {
        put(&path, &[head, rest].concat());
        GptOss::load(dir.path(), &device).is_ok()
    });
}

#[test]
fn indices() {
    let _turn = turn();
    let (dir, device) = (model(), Device::flex());
    let weights = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&weights[8..header_of(&weights)]).unwrap();
    let names = header.as_object().unwrap().keys().filter(|name| *name != "__metadata__");
    let map: Vec<String> = names.map(|name| format!("\"{name}\": \"model.safetensors\"")).collect();
    let index = format!("{{\"metadata\": {{}}, \"weight_map\": {{{}}}}}", map.join(", "));
    let path = dir.path().join("model.safetensors.index.json");
    // Beside the index lies the model, which is read too.
    let limits = Limits { heap: Limits::default().heap + 4 * weights.len(), ..Limits::default() };
    check("model.safetensors.index.json", index.as_bytes(), limits, |bytes| {
        put(&path, bytes);
        GptOss::load(dir.path(), &device).is_ok()
    });
}
