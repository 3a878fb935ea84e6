//! A model directory: `config.json`, `generation_config.json`, the index and the shards.
//!
//! The model is a random one of half a megabyte with packed experts.

use burn::tensor::Device;
use descant_model::{Config, GptOss, stop_ids};
use descant_testkit::door::{Limits, check};
use descant_testkit::heap::{Whose, peak_of};
use descant_testkit::nf4;
use descant_testkit::shard::{Dtype, Tensors, file_of, head_and_data, header_and_data, joined};
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
    let (header, rest) = head_and_data(&weights);
    let limits = Limits { heap: Limits::default().heap + 4 * rest.len(), ..Limits::default() };
    check("safetensors", header, limits, |head| {
        put(&path, &[head, rest].concat());
        GptOss::load(dir.path(), &device).is_ok()
    });
}

/// A whole checkpoint of bitsandbytes: damage in its header, in the state of one matrix, and anywhere.
#[test]
fn checkpoints_of_bitsandbytes() {
    let _turn = turn();
    let (dir, device) = (tempfile::tempdir().unwrap(), Device::flex());
    let nf4::Model { mut config, mut packed, .. } = nf4::Model::tiny();
    // One layer and 16 of 256 tokens: what is not damaged is computed anyway.
    for (key, value) in [
        ("num_hidden_layers", json!(1)),
        ("layer_types", json!(["full_attention"])),
        ("vocab_size", json!(16)),
    ] {
        config[key] = value;
    }
    packed.retain(|name, _| !name.contains("layers.1."));
    for name in ["lm_head.weight", "model.embed_tokens.weight"] {
        let (_, shape, bytes) = packed.get_mut(name).unwrap();
        shape[0] = 16;
        bytes.truncate(bytes.len() / 16);
    }
    put(&dir.path().join("config.json"), config.to_string().as_bytes());
    let path = dir.path().join("model.safetensors");
    let load = |file: &[u8]| {
        put(&path, file);
        GptOss::load(dir.path(), &device).is_ok()
    };
    let file = file_of(&packed);
    let (head, data) = head_and_data(&file);
    let limits = Limits { heap: Limits::default().heap + 4 * data.len(), ..Limits::default() };
    check("NF4, header", head, limits, |head| load(&[head, data].concat()));
    // Of the matrix that is read first, behind all other data.
    let name = format!("model.layers.0.mlp.experts.down_projs.0.weight{}", nf4::STATE);
    let (_, _, state) = packed.remove(&name).unwrap();
    let others = file_of(&packed);
    let (mut header, others) = header_and_data(&others);
    check("NF4, state", &state, limits, |state| {
        let offsets = [others.len(), others.len() + state.len()];
        let tensor = json!({"dtype": "U8", "shape": [state.len()], "data_offsets": offsets});
        header.insert(name.clone(), tensor);
        load(&joined(header.clone(), &[others, state].concat()))
    });
    check("NF4, file", &file, limits, load);
}

#[test]
fn indices() {
    let _turn = turn();
    let (dir, device) = (model(), Device::flex());
    let weights = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    let (header, _) = header_and_data(&weights);
    let names = header.keys().filter(|name| *name != "__metadata__");
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
    let packed = Tensors::from([
        (format!("{experts}.weight"), (Dtype::U8, vec![2], vec![0; 2])),
        (format!("{experts}.weight.absmax"), (Dtype::F32, vec![1], vec![0; 4])),
        (format!("{experts}.weight.quant_map"), (Dtype::F32, vec![16], vec![0; 64])),
        (format!("{experts}.weight{}", nf4::STATE), (Dtype::U8, vec![state.len()], state)),
    ]);
    // One of 4096 experts, its bias alone: a quarter of a megabyte that speaks of a gigabyte.
    let bias = Tensors::from([(format!("{experts}.bias"), (Dtype::BF16, vec![1 << 17], vec![0; 2 << 17]))]);
    for (tensors, said) in [(packed, "its shape says"), (bias, "down_projs.1.bias` is missing")] {
        put(&dir.path().join("model.safetensors"), &file_of(&tensors));
        let (loaded, heap) = peak_of(Whose::Process, || GptOss::load(dir.path(), &Device::flex()));
        let error = loaded.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert!(heap < Limits::default().heap, "{said}: {heap} bytes of heap");
    }
}
