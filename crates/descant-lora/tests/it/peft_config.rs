//! `adapter_config.json`: what passes, what is refused and by which name, and what targets and patterns match.

use std::path::Path;

use descant_lora::peft::{self, Error, PeftConfig, TargetModules};
use descant_model::{Site, SiteKind};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{fixture, model, read_stored, write_stored};

fn parse(value: &Value) -> Result<PeftConfig, Error> {
    PeftConfig::from_slice(value.to_string().as_bytes(), Path::new("adapter_config.json"))
}

/// A minimal configuration with some keys set.
fn with(keys: &Value) -> Value {
    let mut config = json!({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]});
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    config
}

#[test]
fn pefts_own_file_is_read() {
    let bytes =
        descant_files::read_bounded(&fixture("golden/peft_tiny/adapter/adapter_config.json"), 1 << 20)
            .unwrap();
    let config = PeftConfig::from_slice(&bytes, Path::new("x")).unwrap();
    assert_eq!((config.rank, config.scaling(config.rank, config.alpha)), (4, 2.0));
    assert_eq!(config.target_parameters, ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]);
}

#[test]
fn keys_that_say_nothing_pass() {
    for value in [json!(null), json!(false), json!([]), json!({}), json!("")] {
        for key in ["use_dora", "layers_to_transform", "of_a_later_release"] {
            parse(&with(&json!({key: value}))).unwrap_or_else(|error| panic!("{key} = {value}: {error}"));
        }
    }
    let inert = json!({
        "peft_version": "0.21.2", "megatron_core": "megatron.core", "qalora_group_size": 16, "revision": "main",
        "inference_mode": true, "lora_dropout": 0.05, "task_type": "CAUSAL_LM", "bias": "none",
        "init_lora_weights": "gaussian", "auto_mapping": {"base_model_class": "GptOssForCausalLM"},
    });
    parse(&with(&inert)).unwrap();
}

#[test]
fn keys_that_would_change_the_arithmetic_are_refused_by_name() {
    for (key, value) in [
        ("use_dora", json!(true)),
        ("lora_bias", json!(true)),
        ("fan_in_fan_out", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("layer_replication", json!([[0, 2]])),
        ("alora_invocation_tokens", json!([1])),
        ("trainable_token_indices", json!([1])),
        ("use_qalora", json!(true)),
        ("megatron_config", json!({"tensor_model_parallel_size": 2})),
        ("bias", json!("all")),
        ("bias", json!("lora_only")),
        ("bias", json!(1)),
        ("peft_type", json!("LOHA")),
        ("task_type", json!("SEQ_CLS")),
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("olora")),
        ("init_lora_weights", json!("loftq")),
        ("init_lora_weights", json!(1)),
        ("of_a_later_release", json!(1)),
    ] {
        let error = parse(&with(&json!({key: value}))).unwrap_err();
        assert!(matches!(&error, Error::Unsupported { key: named, .. } if named == key), "{key}: {error}");
        let text = format!("adapter_config.json: `{key}` is {value}, which is not supported");
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn impossible_values_are_refused_by_name() {
    for (key, value) in [
        ("r", json!(0)),
        ("r", json!(4097)),
        ("r", json!(-1)),
        ("r", json!(1.5)),
        ("r", json!("8")),
        ("r", json!(null)),
        ("lora_alpha", json!(0)),
        ("lora_alpha", json!(-16)),
        ("lora_alpha", json!("16")),
        ("lora_alpha", json!(null)),
        ("lora_dropout", json!(1.0)),
        ("lora_dropout", json!(-0.1)),
        ("use_rslora", json!("yes")),
        ("target_modules", json!([1])),
        ("target_modules", json!([""])),
        ("target_modules", json!({"q_proj": 1})),
        ("target_parameters", json!("mlp.experts.down_proj")),
        ("rank_pattern", json!([])),
        ("base_model_name_or_path", json!(7)),
    ] {
        let error = parse(&with(&json!({key: value}))).unwrap_err();
        assert!(matches!(&error, Error::Key { key: named, .. } if named == key), "{key} = {value}: {error}");
    }
    for (key, inner) in [("rank_pattern", json!(0)), ("alpha_pattern", json!(-1))] {
        let error = parse(&with(&json!({key: {"q_proj": inner}}))).unwrap_err();
        assert!(error.to_string().contains(&format!("`{key}.q_proj` is {inner}; expected")), "{error}");
    }
    for text in ["", "[]", "{", "null", "{\"lora_alpha\": 1e999}"] {
        let error = PeftConfig::from_slice(text.as_bytes(), Path::new("a.json")).unwrap_err();
        assert!(matches!(error, Error::Json { .. }), "{text}: {error}");
        assert!(error.to_string().starts_with("a.json: "), "{error}");
    }
}

#[test]
fn scaling_is_alpha_by_rank_or_by_its_root() {
    let plain = parse(&with(&json!({}))).unwrap();
    let bits = |value: f64| (value as f32).to_bits();
    assert_eq!(plain.scaling(8, 16.0).to_bits(), bits(2.0));
    assert_eq!(plain.scaling(3, 16.0).to_bits(), bits(16.0 / 3.0));
    let rslora = parse(&with(&json!({"use_rslora": true}))).unwrap();
    assert_eq!(rslora.scaling(16, 16.0).to_bits(), bits(4.0));
    assert!(matches!(plain.target_modules, TargetModules::Names(names) if names == ["q_proj"]));
}

/// Ranks and scalings that a configuration gives the query and key of both layers of a model. Every tensor is cut
/// or repeated to the rank asked for, so that shapes fit.
fn scales(keys: &Value, expected: &[(usize, SiteKind, usize, f32)]) {
    let model = model("golden/peft_tiny/base");
    let dir = TempDir::new().unwrap();
    let source = read_stored(&fixture("golden/peft_tiny/adapter/adapter_model.safetensors"));
    let mut tensors = std::collections::BTreeMap::new();
    for &(layer, kind, rank, _) in expected {
        for part in ["lora_A", "lora_B"] {
            let name =
                format!("base_model.model.model.layers.{layer}.self_attn.{}.{part}.weight", kind.name());
            let (dtype, shape, bytes) = source[&name].clone();
            let width = if part == "lora_A" { shape[1] } else { shape[0] };
            let shape = if part == "lora_A" { vec![rank, width] } else { vec![width, rank] };
            let bytes = bytes.into_iter().cycle().take(rank * width * 4).collect();
            tensors.insert(name, (dtype, shape, bytes));
        }
    }
    write_stored(&dir.path().join("adapter_model.safetensors"), &tensors);
    let config = with(keys).to_string();
    descant_files::write_atomic(&dir.path().join("adapter_config.json"), config.as_bytes()).unwrap();
    let adapter = peft::load(dir.path(), &model).unwrap_or_else(|error| panic!("{keys}: {error}"));
    let found: Vec<_> = adapter
        .sites
        .iter()
        .map(|(&Site { layer, kind }, factors)| (layer, kind, factors.rank, factors.scaling))
        .collect();
    assert_eq!(found, expected, "{keys}");
}

#[test]
fn patterns_match_as_pefts_do() {
    use SiteKind::{Key, Query};
    let q_k = json!(["q_proj", "k_proj"]);
    let two = |first, second, third, fourth| {
        [first, second, third, fourth]
            .into_iter()
            .zip([(0, Query), (0, Key), (1, Query), (1, Key)])
            .map(|(rank, (layer, kind))| (layer, kind, rank, 16.0 / rank as f32))
            .collect::<Vec<_>>()
    };
    let rank = |pattern: Value| json!({"target_modules": q_k, "rank_pattern": pattern});
    scales(&rank(json!({})), &two(8, 8, 8, 8));
    scales(&rank(json!({"q_proj": 4})), &two(4, 8, 4, 8));
    scales(&rank(json!({"self_attn.k_proj": 4})), &two(8, 4, 8, 4));
    scales(&rank(json!({"model.layers.1.self_attn.q_proj": 4})), &two(8, 8, 4, 8));
    scales(&rank(json!({r"layers\.[0].*": 4})), &two(4, 4, 8, 8));
    scales(&rank(json!({r"^model\.layers\.0\..*": 4})), &two(4, 4, 8, 8));
    // A name is matched to its end, and from its beginning or a dot.
    scales(&rank(json!({"proj": 4, "self_attn": 4, "q_pro": 4})), &two(8, 8, 8, 8));
    // The first that matches counts, in the order of the file.
    scales(&rank(json!({"q_proj": 4, ".*": 2})), &two(4, 2, 4, 2));
    scales(&rank(json!({".*": 2, "q_proj": 4})), &two(2, 2, 2, 2));

    let alpha = json!({"target_modules": q_k, "alpha_pattern": {"k_proj": 4}, "rank_pattern": {"q_proj": 2}});
    scales(&alpha, &[(0, Query, 2, 8.0), (0, Key, 8, 0.5), (1, Query, 2, 8.0), (1, Key, 8, 0.5)]);
}

#[test]
fn targets_match_as_pefts_do() {
    use SiteKind::{Key, Query};
    let q = [(0, Query, 8, 2.0), (1, Query, 8, 2.0)];
    for targets in [
        json!(["q_proj"]),
        json!(["self_attn.q_proj"]),
        json!(["model.layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj"]),
        json!(r".*\.q_proj"),
        json!(r"model\.layers\.\d+\.self_attn\.q_proj"),
    ] {
        scales(&json!({"target_modules": targets}), &q);
    }
    scales(&json!({"target_modules": ["layers.1.self_attn.k_proj"]}), &[(1, Key, 8, 2.0)]);
    // What PEFT calls a parameter of a linear layer is stored like the layer itself.
    scales(&json!({"target_modules": [], "target_parameters": ["q_proj.weight"]}), &q);
    // The published notebooks name modules of dense models as well.
    scales(&json!({"target_modules": ["q_proj", "gate_proj", "up_proj", "down_proj"]}), &q);
}

#[test]
fn targets_that_match_nothing_are_refused_by_name() {
    let model = model("golden/peft_tiny/base");
    let dir = TempDir::new().unwrap();
    let load = |keys: Value| {
        let config = with(&keys).to_string();
        descant_files::write_atomic(&dir.path().join("adapter_config.json"), config.as_bytes()).unwrap();
        peft::load(dir.path(), &model).unwrap_err()
    };
    for (keys, target) in [
        (json!({"target_modules": ["proj"]}), "proj"),
        (json!({"target_modules": ["q_pro"]}), "q_pro"),
        (json!({"target_modules": ["layers.2.self_attn.q_proj"]}), "layers.2.self_attn.q_proj"),
        (json!({"target_modules": "q_proj"}), "q_proj"),
        (json!({"target_modules": ["down_proj"]}), "down_proj"),
        (
            json!({"target_modules": [], "target_parameters": ["mlp.experts.gate_proj"]}),
            "mlp.experts.gate_proj",
        ),
        (
            json!({"target_modules": [], "target_parameters": ["mlp.experts.down_proj_bias"]}),
            "mlp.experts.down_proj_bias",
        ),
        (json!({"target_modules": ["gate_up_projs.4"]}), "gate_up_projs.4"),
    ] {
        let error = load(keys);
        assert!(
            matches!(&error, Error::NoMatch { target: named, .. } if named == target),
            "{target}: {error}"
        );
    }
    for (keys, named) in [
        (json!({"target_modules": ["q_proj", "lm_head"]}), "target_modules"),
        (json!({"target_modules": ["embed_tokens"]}), "target_modules"),
        (json!({"layers_to_transform": [0, 99]}), "layers_to_transform"),
        (json!({"layers_to_transform": "all"}), "layers_to_transform"),
        (json!({"layers_to_transform": 0, "layers_pattern": "h"}), "layers_pattern"),
        (json!({"exclude_modules": 3}), "exclude_modules"),
    ] {
        let error = load(keys.clone());
        assert!(matches!(&error, Error::Key { key, .. } if key == named), "{keys}: {error}");
    }
    assert!(matches!(
        load(json!({"exclude_modules": ["q_proj"]})),
        Error::NoMatch { .. } | Error::Key { .. }
    ));
    assert!(matches!(load(json!({"target_modules": []})), Error::Key { key, .. } if key == "target_modules"));
    assert!(
        matches!(load(json!({"target_modules": "("})), Error::Key { key, .. } if key == "target_modules")
    );
    let unclosed = load(json!({"rank_pattern": {"q_proj[": 2}}));
    assert!(matches!(&unclosed, Error::Key { key, .. } if key == "rank_pattern"), "{unclosed}");
    let twice = load(json!({"target_parameters": ["q_proj.weight"]}));
    assert!(matches!(&twice, Error::Conflict { reason, .. } if reason.contains("twice")), "{twice}");
}

/// Adapters of strangers, trained on the tiny model's shapes.
#[test]
fn adapters_of_strangers_load_as_far_as_they_fit() {
    let model = model("tiny-gpt-oss");
    let case = |name: &str| fixture(&format!("cases/adapters/{name}"));
    // Names of experts among the modules match nothing, and the attention does.
    let adapter = peft::load(&case("a01_gate_up_proj_in_modules"), &model).unwrap();
    assert_eq!(adapter.passed_over, ["gate_up_proj", "down_proj"]);
    assert_eq!(adapter.sites.len(), 4 * model.num_hidden_layers);
    // Some layers alone.
    let adapter = peft::load(&case("a05_layers"), &model).unwrap();
    let layers: Vec<usize> = adapter.sites.keys().map(|site| site.layer).collect();
    assert!(layers.len() == 8 && layers.iter().all(|layer| [1, 3].contains(layer)), "{layers:?}");
    // The same tensors under other configurations.
    let dir = TempDir::new().unwrap();
    let read =
        |name: &str| descant_files::read_bounded(&case("a01_gate_up_proj_in_modules").join(name), 1 << 20);
    let tensors = read("adapter_model.safetensors").unwrap();
    descant_files::write_atomic(&dir.path().join("adapter_model.safetensors"), &tensors).unwrap();
    let config: Value = serde_json::from_slice(&read("adapter_config.json").unwrap()).unwrap();
    let load = |keys: Value| {
        let mut config = config.clone();
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        descant_files::write_atomic(&dir.path().join("adapter_config.json"), config.to_string().as_bytes())
            .unwrap();
        peft::load(dir.path(), &model)
    };
    let attention = json!(["q_proj", "k_proj", "v_proj", "o_proj"]);
    let excluded = load(json!({"target_modules": attention, "exclude_modules": ["lm_head"]})).unwrap();
    assert!(excluded.passed_over.is_empty());
    assert_eq!(excluded.sites.len(), 4 * model.num_hidden_layers);
    // A module that is excluded has its tensors in the file anyway: they are not passed over.
    let error = load(json!({"target_modules": attention, "exclude_modules": ".*k_proj"})).unwrap_err();
    assert!(matches!(&error, Error::ExtraTensor { tensor, .. } if tensor.contains("k_proj")), "{error}");
    let error =
        load(json!({"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "lm_head"]})).unwrap_err();
    assert!(
        error.to_string().ends_with("`target_modules` names lm_head; adapters on lm_head are not supported"),
        "{error}"
    );
    let error = peft::load(&case("a13_bin_only"), &model).unwrap_err().to_string();
    assert!(error.contains("adapter_model.bin: a pickle") && error.contains("save_file"), "{error}");
}
