//! Defects of an adapter's folder.

use serde_json::{Map, Value, json};

use super::models::{with_bytes, with_header};
use super::{Case, Command, Damage, case, odd};

const CONFIG: &str = "adapter/adapter_config.json";
const TENSORS: &str = "adapter/adapter_model.safetensors";
const Q_A: &str = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight";

pub(super) fn configs(good: &[u8]) -> Vec<Case> {
    let given = |bytes: Vec<u8>, words| case(Command::Generate, CONFIG, bytes, words);
    let key = |key: &str, value: Value, words| {
        let mut config: Map<String, Value> = serde_json::from_slice(good).unwrap();
        config.insert(key.to_owned(), value);
        given(Value::Object(config).to_string().into_bytes(), words)
    };
    vec![
        given(Vec::new(), "adapter_config.json: EOF"),
        key("peft_type", json!("LOHA"), "`peft_type` is \"LOHA\", which is not supported"),
        key("r", json!(0), "`r` is 0; expected 1 to 4096"),
        key("r", json!(1_000_000), "`r` is 1000000; expected 1 to 4096"),
        key("lora_alpha", Value::Null, "`lora_alpha` is missing"),
        key("lora_alpha", json!(-1), "`lora_alpha` is -1; expected a positive number"),
        key("use_dora", json!(true), "`use_dora` is true, which is not supported"),
        key("init_lora_weights", json!("pissa"), "`init_lora_weights` is \"pissa\""),
        key("target_modules", json!(["q_prj"]), "target `q_prj` matches nothing"),
        key("target_modules", json!([]), "`target_modules` and `target_parameters` name nothing"),
        key("target_modules", json!("("), "`target_modules` has a pattern that cannot be used"),
        key("rank_pattern", json!({"q_proj": "x"}), "`rank_pattern.q_proj` is \"x\""),
        key("something_new", json!(3), "`something_new` is 3, which is not supported"),
        #[cfg(unix)]
        odd(Command::Generate, CONFIG, Damage::Link("../run.toml"), "leads out of its folder"),
    ]
}

pub(super) fn tensors(good: &[u8]) -> Vec<Case> {
    let given = |bytes: Vec<u8>, words| case(Command::Generate, TENSORS, bytes, words);
    let header = |change: fn(&mut Map<String, Value>), words| given(with_header(good, change), words);
    vec![
        given(b"{}".to_vec(), "adapter_model.safetensors: "),
        header(
            |h| {
                let tensor = h.remove(Q_A).unwrap();
                h.insert(Q_A.replace("layers.1", "layers.9"), tensor);
            },
            "layers.1.self_attn.q_proj.lora_A.weight` is missing",
        ),
        header(|h| h[Q_A]["shape"] = json!([128, 8]), "q_proj.lora_A.weight`: expected shape [8, 128]"),
        header(|h| h[Q_A]["dtype"] = json!("I32"), "q_proj.lora_A.weight`: type I32 is not supported"),
        given(
            with_bytes(good, Q_A, 8, &f32::NAN.to_le_bytes()),
            "q_proj.lora_A.weight`: element 2 is not finite",
        ),
        odd(Command::Generate, TENSORS, Damage::Gone, "No such file"),
        #[cfg(unix)]
        odd(
            Command::Generate,
            TENSORS,
            Damage::Link("/etc/hostname"),
            "leads out of its folder to /etc/hostname",
        ),
    ]
}
