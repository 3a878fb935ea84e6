//! Model directories and adapters.

use descant_model::Config;
use descant_testkit::shard::{header_and_data, joined};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use serde_json::json;

use super::{Opened, fixture, fixtures, folder, put};

pub(super) fn config() -> Opened {
    let door = |bytes: &[u8]| {
        if let Ok(config) = Config::from_slice(bytes) {
            let frequencies = config.rope.inverse_frequencies(config.head_dim);
            assert_eq!(frequencies.len(), config.head_dim / 2);
            assert!(config.query_width() > 0 && config.key_value_width() <= config.query_width());
            assert!((0..config.num_hidden_layers).all(|layer| config.window(layer) != Some(0)));
        }
    };
    let seeds =
        ["configs/gpt-oss-20b.json", "configs/gpt-oss-120b.json", "golden/peft_tiny/base/config.json"];
    (Box::new(door), seeds.map(fixture).to_vec())
}

/// A safetensors file of two short tensors.
fn small_shard() -> Vec<u8> {
    let header = r#"{"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 11]].concat()
}

pub(super) fn shard() -> Opened {
    let dir = folder();
    let path = dir.join("model.safetensors");
    let door = move |bytes: &[u8]| {
        put(&path, bytes);
        if let Ok(tensors) = descant_model::tensors(&dir) {
            let total: usize = tensors.iter().map(|(_, length)| length).sum();
            assert!(total < bytes.len(), "tensors lie in the file");
        }
    };
    (Box::new(door), vec![small_shard(), fixture("golden/mxfp4/repack.safetensors")])
}

pub(super) fn index() -> Opened {
    let dir = folder();
    put(&dir.join("model.safetensors"), &small_shard());
    let path = dir.join("model.safetensors.index.json");
    let door = move |bytes: &[u8]| {
        put(&path, bytes);
        let _ = descant_model::identity_files(&dir);
        if let Ok(tensors) = descant_model::tensors(&dir) {
            assert_eq!(tensors.len(), 2, "exactly what the shard has");
        }
    };
    let seed = json!({"metadata": {"total_size": 11},
        "weight_map": {"a": "model.safetensors", "b": "model.safetensors"}});
    (Box::new(door), vec![seed.to_string().into_bytes()])
}

pub(super) fn adapter_config() -> Opened {
    let dir = folder();
    let model = Config::from_dir(&fixtures().join("golden/peft_tiny/base")).expect("a good model");
    put(
        &dir.join("adapter_model.safetensors"),
        &fixture("golden/peft_tiny/adapter/adapter_model.safetensors"),
    );
    let path = dir.join("adapter_config.json");
    let door = move |bytes: &[u8]| {
        put(&path, bytes);
        if let Ok(adapter) = descant_lora::peft::load(&dir, &model) {
            assert!(!adapter.sites.is_empty() && adapter.sites.values().all(|site| site.scaling.is_finite()));
        }
    };
    (Box::new(door), vec![fixture("golden/peft_tiny/adapter/adapter_config.json")])
}

/// Bytes choose one change of a file that is good otherwise: whatever is accepted must still fit the model.
pub(super) fn adapter() -> Opened {
    let dir = folder();
    let model = Config::from_dir(&fixtures().join("golden/peft_tiny/base")).expect("a good model");
    put(&dir.join("adapter_config.json"), &fixture("golden/peft_tiny/adapter/adapter_config.json"));
    let good = fixture("golden/peft_tiny/adapter/adapter_model.safetensors");
    let path = dir.join("adapter_model.safetensors");
    let sites = {
        put(&path, &good);
        descant_lora::peft::load(&dir, &model).expect("a good adapter").sites.len()
    };
    let door = move |bytes: &[u8]| {
        let file = changed(&good, &mut Unstructured::new(bytes)).unwrap_or_else(|_| bytes.to_vec());
        put(&path, &file);
        if let Ok(adapter) = descant_lora::peft::load(&dir, &model) {
            assert_eq!(adapter.sites.len(), sites);
            let finite = |factors: &descant_lora::peft::Factors| {
                factors.a.iter().chain(&factors.b).all(|x| x.is_finite())
            };
            assert!(adapter.sites.values().all(finite));
        }
    };
    (Box::new(door), vec![vec![0; 8], vec![1; 16], vec![2; 32]])
}

/// A good file with one change of its header or of its data.
pub(super) fn changed(good: &[u8], choice: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let (mut header, data) = header_and_data(good);
    let mut data = data.to_vec();
    let name = header.keys().nth(choice.choose_index(header.len())?).expect("below their number").clone();
    match choice.int_in_range(0..=6)? {
        0 => drop(header.remove(&name)),
        1 => header[&name]["shape"] = json!([choice.arbitrary::<u64>()?, choice.arbitrary::<u8>()?]),
        2 => {
            header[&name]["dtype"] =
                json!(choice.choose(&["F32", "BF16", "F16", "F64", "I64", "BOOL", "F8_E4M3"])?)
        }
        3 => header[&name]["data_offsets"] = json!([choice.arbitrary::<u64>()?, choice.arbitrary::<u64>()?]),
        4 => {
            let value = header[&name].clone();
            header.insert(choice.arbitrary::<String>()?, value);
        }
        5 => {
            let at = choice.choose_index(data.len().saturating_sub(4))?;
            data[at..at + 4].copy_from_slice(&choice.arbitrary::<u32>()?.to_le_bytes());
        }
        _ => {
            let end = choice.choose_index(data.len())?;
            data.truncate(end);
        }
    }
    Ok(joined(header, &data))
}
