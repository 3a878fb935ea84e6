//! Defects of a model directory: configuration, shard, index.

use descant_testkit::nf4::STATE;
use descant_testkit::shard::{Dtype, Tensors, f32_bytes, file_of, header_and_data, joined};
use serde_json::{Map, Value, json};

use super::{Case, Command, Damage, case, odd};

const CONFIG: &str = "model/config.json";
const SHARD: &str = "model/model.safetensors";
const PACKED: &str = "packed/model.safetensors";
const INDEX: &str = "model/model.safetensors.index.json";

pub(super) fn configs(good: &[u8]) -> Vec<Case> {
    let given = |bytes: Vec<u8>, words| case(Command::Train, CONFIG, bytes, words);
    // One key with another value, or without any where that is null.
    let key = |key: &str, value: Value, words| {
        let mut config: Map<String, Value> = serde_json::from_slice(good).unwrap();
        if value.is_null() {
            config.remove(key);
        } else {
            config.insert(key.to_owned(), value);
        }
        given(Value::Object(config).to_string().into_bytes(), words)
    };
    let mut many: Map<String, Value> = serde_json::from_slice(good).unwrap();
    many.extend([("num_hidden_layers".into(), json!(4096)), ("num_local_experts".into(), json!(4096))]);
    vec![
        given(Value::Object(many).to_string().into_bytes(), "`num_local_experts` is 4096 in 4096 layers"),
        given(Vec::new(), "config.json: EOF"),
        given(b"[]".to_vec(), "config.json: invalid"),
        given(vec![0xff; 10], "config.json: expected value"),
        given([&b"{\"x\": "[..], &b"[".repeat(100_000)].concat(), "config.json: recursion limit"),
        given(vec![b' '; (4 << 20) + 1], "longer than the limit"),
        odd(Command::Train, CONFIG, Damage::Gone, "is not a model directory"),
        key("model_type", json!("llama"), "`model_type` is `llama`"),
        key("hidden_act", json!("gelu"), "`hidden_act` is `gelu`"),
        key("attention_bias", json!(false), "`attention_bias` is false"),
        key("tie_word_embeddings", json!(true), "`tie_word_embeddings` is true"),
        key(
            "quantization_config",
            json!({"quant_method": "awq"}),
            "`quantization_config.quant_method` is `awq`",
        ),
        key("num_local_experts", json!(0), "`num_local_experts` is 0"),
        key("num_experts_per_tok", json!(5), "`num_experts_per_tok` is 5 but `experts_per_token` is 2"),
        key("swiglu_alpha", json!(1.5), "`swiglu_alpha` is 1.5"),
        key("num_hidden_layers", json!(1_000_000_000), "`num_hidden_layers` is 1000000000"),
        key("hidden_size", json!(-1), "invalid value: integer `-1`"),
        key("hidden_size", json!(1e300), "floating point `1e"),
        key("hidden_size", json!("64"), "invalid type: string \"64\""),
        key("num_key_value_heads", json!(3), "`num_key_value_heads` 3 does not divide"),
        key("head_dim", json!(15), "`head_dim` 15 is odd"),
        key("rms_norm_eps", json!(0), "`rms_norm_eps` is 0"),
        key("swiglu_limit", json!(-7), "`swiglu_limit` is -7"),
        key("layer_types", json!(["full_attention"]), "`layer_types` has 1 entries for 6 layers"),
        key("layer_types", json!(["full", "full", "full", "full", "full", "full"]), "unknown variant `full`"),
        key("vocab_size", json!(0), "`vocab_size` is 0"),
        key("rope_scaling", json!({"rope_type": "longrope"}), "`rope_scaling.rope_type` is `longrope`"),
        key("rope_scaling", json!({"rope_type": "yarn", "factor": 0}), "rope_scaling.factor"),
    ]
}

/// A safetensors file with another header.
pub(super) fn with_header(file: &[u8], change: impl FnOnce(&mut Map<String, Value>)) -> Vec<u8> {
    let (mut header, data) = header_and_data(file);
    change(&mut header);
    joined(header, data)
}

/// A safetensors file with other bytes at an element of a tensor.
pub(super) fn with_bytes(file: &[u8], tensor: &str, at: usize, bytes: &[u8]) -> Vec<u8> {
    let (header, data) = header_and_data(file);
    let begin = file.len() - data.len();
    let start = begin + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize + at;
    let mut file = file.to_vec();
    file[start..start + bytes.len()].copy_from_slice(bytes);
    file
}

pub(super) fn shards(good: &[u8]) -> Vec<Case> {
    let given = |bytes: Vec<u8>, words| case(Command::Train, SHARD, bytes, words);
    let header = |change: fn(&mut Map<String, Value>), words| given(with_header(good, change), words);
    vec![
        given(Vec::new(), "model.safetensors: not a safetensors file"),
        given(b"<!DOCTYPE html><title>Sign in</title>".to_vec(), "header too large"),
        given((1_u64 << 20).to_le_bytes().to_vec(), "invalid header length"),
        given(good[..good.len() - 1].to_vec(), "not a safetensors file: "),
        given([good, b"x"].concat(), "not fully covered"),
        header(|h| drop(h.remove("lm_head.weight")), "not a safetensors file: "),
        header(|h| h["lm_head.weight"]["dtype"] = json!("F99"), "unknown variant `F99`"),
        header(|h| h["lm_head.weight"]["shape"] = json!([1_u64 << 62, 1_u64 << 62]), "verflow"),
        header(
            |h| h["lm_head.weight"]["shape"] = json!([128, 1536]),
            "tensor `lm_head.weight` is [128, 1536]",
        ),
        header(|h| h["lm_head.weight"]["dtype"] = json!("I16"), "tensor `lm_head.weight` is I16"),
        header(
            |h| {
                let tensor = h.remove("model.norm.weight").unwrap();
                h.insert("model.norm.gain".to_owned(), tensor);
            },
            "tensor `model.norm.gain` has no place",
        ),
        header(
            |h| {
                let offsets = h["model.norm.weight"]["data_offsets"].clone();
                h["model.layers.0.input_layernorm.weight"]["data_offsets"] = offsets;
            },
            "not a safetensors file: ",
        ),
        given(
            with_bytes(good, "model.layers.0.mlp.experts.down_proj_scales", 3, &[255]),
            "down_proj_scales` has a non-finite value at element 3",
        ),
        given(
            with_bytes(good, "model.layers.1.self_attn.sinks", 2, &[0xc0, 0x7f]),
            "self_attn.sinks` has a non-finite value at element 1",
        ),
        odd(Command::Train, SHARD, Damage::Gone, "neither model.safetensors nor"),
        #[cfg(unix)]
        odd(Command::Generate, SHARD, Damage::Pipe, "not a regular file"),
    ]
}

pub(super) fn indices() -> Vec<Case> {
    let given = |text: &str, words| case(Command::Train, INDEX, text, words);
    let named =
        |file: &str, words| given(&json!({"weight_map": {"lm_head.weight": file}}).to_string(), words);
    vec![
        given("{", "index.json: EOF"),
        given("{}", "missing field `weight_map`"),
        given(r#"{"weight_map": {}}"#, "`weight_map` names no tensor"),
        given(r#"{"weight_map": {"a": 1}}"#, "invalid type: integer `1`"),
        named("../model.safetensors", "\"../model.safetensors\": contains the part `.` or `..`"),
        named("/etc/passwd", "\"/etc/passwd\": is absolute"),
        named("..\\x", "contains a backslash"),
        named("NUL", "is the name of a device on some systems"),
        named("other/model.safetensors", "`other/model.safetensors` is in another folder"),
        named("model.safetensors", "the index says otherwise"),
    ]
}

/// Defects of a checkpoint of bitsandbytes.
pub(super) fn packed(good: &Tensors) -> Vec<Case> {
    const DOWN: &str = "model.layers.1.mlp.experts.down_projs.3.weight";
    const KEY: &str = "model.layers.0.self_attn.k_proj.weight";
    let changed = |change: &dyn Fn(&mut Tensors), words| {
        let mut tensors = good.clone();
        change(&mut tensors);
        case(Command::ScorePacked, PACKED, file_of(&tensors), words)
    };
    let state = |bytes: Vec<u8>, words| {
        let change = |t: &mut Tensors| {
            t.insert(format!("{DOWN}{STATE}"), (Dtype::U8, vec![bytes.len()], bytes.clone()));
        };
        changed(&change, words)
    };
    let key = |key: &str, value: Value, words| {
        let mut json: Map<String, Value> =
            serde_json::from_slice(&good[&format!("{DOWN}{STATE}")].2).unwrap();
        json.insert(key.to_owned(), value);
        state(Value::Object(json).to_string().into_bytes(), words)
    };
    vec![
        state(Vec::new(), "down_projs.3.weight.quant_state.bitsandbytes__nf4`: EOF"),
        state(b"[".repeat(10_000), "down_projs.3.weight.quant_state.bitsandbytes__nf4`: "),
        key("quant_type", json!("fp4"), "down_projs.3.weight.quant_state.bitsandbytes__nf4`: it is \"fp4\""),
        key("shape", json!([1_u64 << 40, 1_u64 << 40]), "its shape is [1099511627776, 1099511627776]"),
        key("blocksize", json!(-64), "invalid value: integer `-64`"),
        key("nested_offset", json!(1e300), "nested_offset 0 is inf"),
        changed(
            &|t| drop(t.remove(&format!("{KEY}.nested_absmax"))),
            "tensor `model.layers.0.self_attn.k_proj.weight.nested_absmax` is missing",
        )
        .at("packed"),
        changed(
            &|t| {
                t.insert(format!("{KEY}.absmax"), (Dtype::U8, vec![3], vec![0; 3]));
            },
            "absmax: expected 32 elements, got 3",
        ),
        changed(
            &|t| {
                t.insert(KEY.to_owned(), (Dtype::U8, vec![5, 1], vec![0; 5]));
            },
            "it has 5 bytes; its shape says 1024",
        ),
        changed(
            &|t| {
                t.insert(format!("{KEY}.nested_absmax"), (Dtype::F32, vec![1], f32_bytes(&[f32::NAN])));
            },
            "nested_absmax 0 is NaN",
        ),
        changed(
            &|t| {
                let tensor = t[&format!("{KEY}.quant_map")].clone();
                t.insert("model.layers.0.mlp.experts.down_projs.4.weight.quant_map".to_owned(), tensor);
            },
            "tensor `model.layers.0.mlp.experts.down_projs.4.weight.quant_map` has no place",
        ),
    ]
}
