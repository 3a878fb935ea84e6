//! Files with one defect each, through the binary: each ends with 2 and its own words, which name the file and the
//! key, tensor, line or row; nothing panics.

use std::collections::BTreeMap;
use std::path::Path;

use descant_testkit::crash::Subject;
use descant_testkit::micro::{Options, config};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_descant");

/// What is damaged, how, and words that the error must have.
struct Case {
    file: &'static str,
    bytes: Vec<u8>,
    words: &'static str,
}

fn case(file: &'static str, bytes: impl Into<Vec<u8>>, words: &'static str) -> Case {
    Case { file, bytes: bytes.into(), words }
}

/// `config.json` with keys replaced, or removed where the value is null.
fn with(keys: &[(&str, Value)]) -> String {
    let mut config = config();
    let map = config.as_object_mut().unwrap();
    for (key, value) in keys {
        if value.is_null() {
            map.shift_remove(*key);
        } else {
            map.insert((*key).to_owned(), value.clone());
        }
    }
    config.to_string()
}

fn configs() -> Vec<Case> {
    let one =
        |key: &'static str, value: Value, words| case("model/config.json", with(&[(key, value)]), words);
    vec![
        case("model/config.json", "", "config.json: EOF"),
        case("model/config.json", "[]", "config.json: invalid type"),
        case("model/config.json", vec![0xff; 10], "config.json: expected value"),
        case("model/config.json", "[".repeat(100_000), "config.json: invalid type: sequence"),
        case("model/config.json", vec![b' '; (4 << 20) + 1], "longer than the limit"),
        one("model_type", json!("llama"), "`model_type` is `llama`"),
        one("hidden_act", json!("gelu"), "`hidden_act` is `gelu`"),
        one("attention_bias", json!(false), "`attention_bias` is false"),
        one("tie_word_embeddings", json!(true), "`tie_word_embeddings` is true"),
        one(
            "quantization_config",
            json!({"quant_method": "awq"}),
            "`quantization_config.quant_method` is `awq`",
        ),
        one("num_local_experts", json!(0), "`num_local_experts` is 0"),
        one("num_experts_per_tok", json!(5), "`num_experts_per_tok` is 5"),
        one("num_experts_per_tok", Value::Null, "missing field `num_experts_per_tok`"),
        one("num_hidden_layers", json!(1_000_000_000), "`num_hidden_layers` is 1000000000"),
        one("hidden_size", json!(-1), "invalid value: integer `-1`"),
        one("hidden_size", json!(1e300), "floating point `1e"),
        one("hidden_size", json!("64"), "invalid type: string \"64\""),
        one("num_key_value_heads", json!(3), "`num_key_value_heads` 3 does not divide"),
        one("head_dim", json!(15), "`head_dim` 15 is odd"),
        one("rms_norm_eps", json!(0), "`rms_norm_eps` is 0"),
        one("swiglu_limit", json!(-7), "`swiglu_limit` is -7"),
        one("swiglu_limit", Value::Null, "missing field `swiglu_limit`"),
        one("layer_types", json!(["full_attention"]), "`layer_types` has 1 entries for 2 layers"),
        one("layer_types", json!(["full", "full"]), "unknown variant `full`"),
        one("vocab_size", json!(0), "`vocab_size` is 0"),
    ]
}

/// The model's file with another header.
fn with_header(model: &[u8], change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Vec<u8> {
    let length = u64::from_le_bytes(model[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&model[8..8 + length]).unwrap();
    change(header.as_object_mut().unwrap());
    let header = header.to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes()[..], &header, &model[8 + length..]].concat()
}

fn shards(model: &[u8]) -> Vec<Case> {
    let shard = |bytes: Vec<u8>, words| case("model/model.safetensors", bytes, words);
    let sinks = "model.layers.1.self_attn.sinks";
    let changed =
        |change: fn(&mut serde_json::Map<String, Value>), words| shard(with_header(model, change), words);
    let mut scale = model.to_vec();
    let length = u64::from_le_bytes(model[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&model[8..8 + length]).unwrap();
    let start = |name: &str| header[name]["data_offsets"][0].as_u64().unwrap() as usize + 8 + length;
    scale[start("model.layers.0.mlp.experts.down_proj_scales") + 3] = 255;
    let mut not_a_number = model.to_vec();
    let at = start(sinks);
    not_a_number[at..at + 2].copy_from_slice(&[0xc0, 0x7f]);
    vec![
        shard(Vec::new(), "model.safetensors: not a safetensors file"),
        shard(b"<!DOCTYPE html><title>Sign in</title>".to_vec(), "safetensors file: invalid header"),
        shard(u64::MAX.to_le_bytes().to_vec(), "header too large"),
        shard(model[..model.len() - 1].to_vec(), "not a safetensors file: "),
        shard([model, b"x"].concat(), "not fully covered"),
        changed(|h| drop(h.shift_remove("lm_head.weight")), "not a safetensors file"),
        changed(|h| h["lm_head.weight"]["dtype"] = json!("F99"), "unknown variant `F99`"),
        changed(|h| h["lm_head.weight"]["shape"] = json!([1 << 62, 1 << 62]), "overflow"),
        changed(
            |h| h["lm_head.weight"]["shape"] = json!([64, 1536]),
            "tensor `lm_head.weight` is [64, 1536]",
        ),
        changed(|h| h["lm_head.weight"]["dtype"] = json!("I16"), "tensor `lm_head.weight` is I16"),
        changed(
            |h| {
                let tensor = h.shift_remove("model.norm.weight").unwrap();
                h.insert("model.norm.gain".to_owned(), tensor);
            },
            "tensor `model.norm.gain` has no place",
        ),
        shard(scale, "down_proj_scales` holds a value that is not finite, at element 3"),
        shard(not_a_number, "self_attn.sinks` holds a value that is not finite, at element 0"),
    ]
}

fn indices() -> Vec<Case> {
    let index = |bytes: &str, words| case("model/model.safetensors.index.json", bytes, words);
    let named =
        |file: &str, words| index(&json!({"weight_map": {"lm_head.weight": file}}).to_string(), words);
    vec![
        index("{", "index.json: EOF"),
        index("{}", "missing field `weight_map`"),
        index(r#"{"weight_map": {"a": 1}}"#, "invalid type: integer `1`"),
        named("../model.safetensors", "`../model.safetensors` is no plain file name"),
        named("/etc/passwd", "`/etc/passwd` is no plain file name"),
        named("..\\x", "`..\\x` is no plain file name"),
        named("missing.safetensors", "missing.safetensors: No such file"),
        named("model.safetensors", "the index says otherwise"),
    ]
}

fn texts() -> Vec<Case> {
    vec![
        case("model/tokenizer.json", "{}", "tokenizer.json"),
        case("model/tokenizer.json", "", "tokenizer.json: EOF"),
        case(
            "model/tokenizer.json",
            r#"{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}"#,
            "<|",
        ),
        case("model/chat_template.jinja", "{% for %}", "chat_template.jinja"),
        case("model/chat_template.jinja", vec![0xff, 0xfe], "UTF-8"),
        case("model/chat_template.jinja", "{% include '/etc/passwd' %}", "/etc/passwd"),
        case(
            "model/chat_template.jinja",
            "{% for a in range(9999) %}{% for b in range(9999) %}{% set c = a * b %}{% endfor %}{% endfor %}",
            "out of fuel",
        ),
        case("data.jsonl", "", "no rows"),
        case("data.jsonl", "{\n", "line 1"),
        case("data.jsonl", "[1]\n", "row 1"),
        case("data.jsonl", "{\"messages\": []}\n", "empty"),
        case("data.jsonl", "{\"messages\": 7}\n", "7"),
        case("data.jsonl", "{\"messages\": [{\"role\": \"wizard\", \"content\": \"x\"}]}\n", "wizard"),
        case("data.jsonl", "{\"messages\": [{\"role\": \"user\"}]}\n", "row 1"),
        case("data.jsonl", vec![b'{', b'"', 0xff, b'"', b'}', b'\n'], "UTF-8"),
        case("data.jsonl", "[".repeat(1 << 20), "recursion"),
        case("data.jsonl", "x".repeat((16 << 20) + 10), "line 1"),
        case("data.jsonl", vec![0x1f, 0x8b, 8, 0, 0], "data.jsonl"),
        case("data.jsonl", b"PAR1PAR1".to_vec(), "data.jsonl"),
    ]
}

fn settings() -> Vec<Case> {
    let set = |text: &str, words| case("run.toml", text, words);
    vec![
        set("[train", "run.toml:1:"),
        set("train = 3", "unknown key `train`"),
        set("[trian]\nseed = 1", "did you mean [train]?"),
        set("[train]\nlearning_rat = 1", "did you mean train.learning_rate?"),
        set("[train]\nseed = 1\nseed = 2", "duplicate key"),
        set("[train]\nlearning_rate = nan", "train.learning_rate is NaN"),
        set("[train]\nlearning_rate = -1.0", "train.learning_rate is -1"),
        set("[train]\nmicro_batch = -1", "invalid value: integer `-1`"),
        set("[train]\nmicro_batch = 0", "train.micro_batch is 0"),
        set("[train]\nschedule = \"step\"", "unknown variant `step`"),
        set("[guard]\nspike_z = 0.0", "guard.spike_z is 0"),
        set("[run]\nkeep = 1", "run.keep is 1"),
        set("[lora]\nr = 1000000", "lora.r is 1000000"),
        set("[lora]\ntargets = [\"all\"]", "`all` matches nothing"),
        set("[data]\ndate = \"yesterday\"", "data.date is `yesterday`"),
    ]
}

#[test]
fn each_defect_has_its_own_error_that_names_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let subject = Subject::new(Path::new(BINARY), dir.path(), &Options::default(), 3).unwrap();
    // Only what is not damaged is set, so that the settings file has its say.
    let paths =
        ["model.path=model", "data.path=data.jsonl", "run.folder=run"].map(|set| ["--set", set]).concat();
    let run = || {
        let mut command = std::process::Command::new(BINARY);
        command.current_dir(dir.path()).args(["train", "-q", "run.toml"]).args(&paths);
        let output = command.env("RUST_BACKTRACE", "0").env_remove("RUST_LOG").output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    descant_files::write_atomic(&dir.path().join("run.toml"), b"[train]\nmax_steps = 3\nwarmup_steps = 1\n")
        .unwrap();
    let model = std::fs::read(subject.micro.model.join("model.safetensors")).unwrap();
    let cases: Vec<Case> =
        [configs(), shards(&model), indices(), texts(), settings()].into_iter().flatten().collect();
    assert!(cases.len() >= 60, "{}", cases.len());
    let (mut said, mut wrong) = (BTreeMap::new(), Vec::new());
    for (n, Case { file, bytes, words }) in cases.into_iter().enumerate() {
        let path = dir.path().join(file);
        let good = std::fs::read(&path).ok();
        descant_files::write_atomic(&path, &bytes).unwrap();
        let (code, error) = run();
        let place = Path::new(file).file_name().unwrap().to_str().unwrap();
        // A setting out of range is named by its key.
        let placed = error.contains(place) || file == "run.toml" || error.contains("model:");
        if code != Some(2) || !error.contains(words) || error.contains("a bug in") || !placed {
            wrong.push(format!("case {n}, {file}, expected `{words}`: {code:?}\n{error}"));
        }
        if let Some(other) = said.insert(error.clone(), n) {
            wrong.push(format!("cases {other} and {n} have the same error: {error}"));
        }
        match good {
            Some(good) => descant_files::write_atomic(&path, &good).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        assert!(!dir.path().join("run").exists(), "case {n} made a run");
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    // The control: undamaged it trains.
    let (code, error) = run();
    assert_eq!(code, Some(0), "{error}");
}
