//! A model directory: `config.json`, `generation_config.json`, the index and the shards.
//!
//! The model is a random one of half a megabyte with packed experts.

use burn::tensor::Device;
use descant_model::{Config, GptOss, stop_ids};
use descant_testkit::door::{Limits, check};
use descant_testkit::heap::{Whose, peak_of};
use serde_json::{Map, Value, json};
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
    let header: Value = serde_json::from_slice(&weights[8..header_of(&weights)]).unwrap();
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

#[test]
fn a_small_file_does_not_take_the_memory_that_its_configuration_speaks_of() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let config = std::fs::read(fixtures().join("golden/parity-b/config.json")).unwrap();
    let mut config: Map<String, Value> = serde_json::from_slice(&config).unwrap();
    config.extend([
        ("hidden_size".to_owned(), json!(1 << 17)),
        ("intermediate_size".to_owned(), json!(1 << 17)),
        ("num_local_experts".to_owned(), json!(4096)),
        (
            "quantization_config".to_owned(),
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"}),
        ),
    ]);
    put(&dir.path().join("config.json"), Value::Object(config).to_string().as_bytes());
    let experts = "model.layers.0.mlp.experts.down_projs.0";
    let state =
        json!({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [1 << 17, 1 << 17]});
    let state = state.to_string().into_bytes();
    let packed = [
        (format!("{experts}.weight"), "U8", vec![0; 2]),
        (format!("{experts}.weight.absmax"), "F32", vec![0; 4]),
        (format!("{experts}.weight.quant_map"), "F32", vec![0; 64]),
        (format!("{experts}.weight.quant_state.bitsandbytes__nf4"), "U8", state),
    ];
    // One of 4096 experts, its bias alone: a quarter of a megabyte that speaks of a gigabyte.
    let bias = [(format!("{experts}.bias"), "BF16", vec![0; 2 << 17])];
    for (tensors, said) in [(&packed[..], "its shape says"), (&bias[..], "down_projs.1.bias` is missing")] {
        put(&dir.path().join("model.safetensors"), &safetensors(tensors));
        let (loaded, heap) = peak_of(Whose::Process, || GptOss::load(dir.path(), &Device::flex()));
        let error = loaded.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert!(heap < Limits::default().heap, "{said}: {heap} bytes of heap");
    }
}

/// A safetensors file of these, each one row.
fn safetensors(tensors: &[(String, &str, Vec<u8>)]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, dtype, bytes) in tensors {
        let size = ["", "U8", "BF16", "", "F32"].iter().position(|known| known == dtype).unwrap();
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(
            name.clone(),
            json!({"dtype": dtype, "shape": [bytes.len() / size], "data_offsets": offsets}),
        );
        data.extend(bytes);
    }
    let header = Value::Object(header).to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}
