//! `config.json`: what is read, and what is refused by name.

use descant_model::{Config, Packing, SiteKind};
use serde_json::{Value, json};

fn published() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/golden/parity-a/config.json");
    serde_json::from_slice(&std::fs::read(path).expect("the fixture is there")).expect("JSON")
}

fn parse(config: &Value) -> Result<Config, String> {
    Config::from_slice(config.to_string().as_bytes())
}

/// The published file with one key changed, `null` removing it.
fn with(key: &str, value: Value) -> Value {
    let mut config = published();
    let object = config.as_object_mut().expect("an object");
    if value.is_null() {
        object.remove(key);
    } else {
        object.insert(key.into(), value);
    }
    config
}

#[test]
fn the_published_spelling_is_read() {
    let config = parse(&published()).expect("reads");
    assert_eq!((config.hidden_size, config.num_experts_per_tok, config.sliding_window), (64, 2, 8));
    assert_eq!((config.window(0), config.window(1)), (Some(8), None));
    assert_eq!(config.packing, Packing::Mxfp4);
}

#[test]
fn both_spellings_of_the_rotary_settings_mean_the_same() {
    let old = parse(&published()).expect("reads");
    let mut config = with("rope_theta", Value::Null);
    let object = config.as_object_mut().expect("an object");
    let mut rope = object.remove("rope_scaling").expect("is there");
    rope.as_object_mut().expect("an object").insert("rope_theta".into(), json!(150_000.0));
    object.insert("rope_parameters".into(), rope);
    assert_eq!(parse(&config).expect("reads").rope, old.rope);
}

#[test]
fn what_would_change_the_arithmetic_is_refused_by_name() {
    for (key, value, said) in [
        ("model_type", json!("llama"), "`model_type` is `llama`"),
        ("hidden_act", json!("gelu"), "`hidden_act` is `gelu`"),
        ("attention_bias", json!(false), "`attention_bias`"),
        ("tie_word_embeddings", json!(true), "`tie_word_embeddings`"),
        ("num_local_experts", json!(0), "`num_local_experts` is 0"),
        ("num_hidden_layers", json!(1_000_000_000u64), "`num_hidden_layers` is 1000000000"),
        ("num_experts_per_tok", json!(9), "`num_experts_per_tok` is 9"),
        ("num_key_value_heads", json!(3), "does not divide"),
        ("head_dim", json!(15), "`head_dim` 15 is odd"),
        ("rms_norm_eps", json!(0.0), "`rms_norm_eps` is 0"),
        ("swiglu_limit", json!(-1.0), "`swiglu_limit` is -1"),
        ("swiglu_alpha", json!(1.0), "`swiglu_alpha` is 1"),
        ("final_logit_softcapping", json!(30.0), "`final_logit_softcapping` is 30"),
        (
            "rope_scaling",
            json!({"rope_type": "yarn", "type": "linear", "factor": 2.0}),
            "`rope_scaling.rope_type` is `yarn` and",
        ),
        ("hidden_size", Value::Null, "missing field `hidden_size`"),
        ("layer_types", json!(["full_attention"]), "1 entries for 4 layers"),
        ("layer_types", json!(["full_attention", "x", "y", "z"]), "unknown variant `x`"),
        ("quantization_config", json!({"quant_method": "gptq"}), "`gptq`"),
        (
            "rope_scaling",
            json!({"rope_type": "llama3", "factor": 8.0}),
            "`rope_scaling.rope_type` is `llama3`",
        ),
        ("rope_scaling", json!({"rope_type": "yarn"}), "missing field `rope_scaling.factor`"),
        ("rope_scaling", json!({"rope_type": "yarn", "new_knob": 2.0}), "unknown field `new_knob`"),
        ("rope_theta", json!(-5.0), "`rope_theta` is -5"),
    ] {
        let error = parse(&with(key, value)).expect_err(key);
        assert!(error.contains(said), "{key}: `{error}` does not say `{said}`");
    }
}

#[test]
fn two_keys_for_the_number_of_experts_must_agree() {
    let error = parse(&with("experts_per_token", json!(3))).expect_err("they disagree");
    assert!(error.contains("`experts_per_token` is 3"), "{error}");
    assert!(parse(&with("num_experts_per_tok", Value::Null)).is_ok(), "one is enough");
}

#[test]
fn sites_have_the_shapes_of_their_weights() {
    let config = parse(&published()).expect("reads");
    let dims = config.site_dims(SiteKind::GateUp);
    assert_eq!((dims.d_in, dims.d_out, dims.n_matrices), (64, 192, 8));
    assert_eq!(dims.lora_parameters(3), 8 * 3 * (64 + 192));
    assert_eq!(config.site_dims(SiteKind::Output).d_in, 128);
}
