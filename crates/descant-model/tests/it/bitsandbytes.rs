//! The layout of bitsandbytes: NF4 linear layers, an expert each, and everything that can be wrong with it.

use std::path::PathBuf;

use burn::tensor::Device;
use descant_model::{Bare, Batch, Error, GptOss};
use descant_quant::nf4::{Scales, dynamic_map};
use descant_testkit::nf4::{Model, STATE};
use descant_testkit::shard::{Dtype, Tensors, f32_bytes, f32s, file_of};
use serde_json::{Value, json};

#[expect(clippy::disallowed_methods, reason = "a test's own folder need not survive a crash")]
fn put(path: PathBuf, bytes: impl AsRef<[u8]>) {
    std::fs::write(path, bytes).expect("writes");
}

fn load(tensors: &Tensors, config: &Value) -> Result<GptOss, Error> {
    let dir = tempfile::tempdir().expect("a folder");
    put(dir.path().join("config.json"), config.to_string());
    put(dir.path().join("model.safetensors"), file_of(tensors));
    GptOss::load(dir.path(), &Device::flex())
}

fn load_packed(model: &Model) -> Result<GptOss, Error> {
    load(&model.packed, &model.config)
}

fn logits(model: &GptOss) -> Vec<f32> {
    let ids: Vec<u32> = (0..20).map(|i| i * 7 % 256).collect();
    let batch = Batch::new([ids.as_slice()], 256).expect("valid");
    model.logits(model.hidden(&batch, &Bare)).into_data().try_to_vec().expect("f32")
}

const GATE_UP: &str = "model.layers.1.mlp.experts.gate_up_projs.2.weight";
const QUERY: &str = "model.layers.0.self_attn.q_proj.weight";

#[test]
fn packed_layers_compute_what_their_numbers_compute_unpacked() {
    let model = Model::tiny();
    let mut plain = model.config.clone();
    plain.as_object_mut().expect("an object").remove("quantization_config");
    let unpacked = logits(&load(&model.unpacked, &plain).expect("loads"));
    assert_eq!(logits(&load_packed(&model).expect("loads")), unpacked);
    // The comparison can fail: one nibble of one expert is enough.
    let mut other = Model::tiny();
    other.packed.get_mut(GATE_UP).expect("is there").2[7] ^= 0x30;
    assert_ne!(logits(&load_packed(&other).expect("loads")), unpacked);
}

#[test]
fn what_came_is_told_by_tensor() {
    let model = load_packed(&Model::tiny()).expect("loads");
    // On the CPU nothing is kept packed, which is not an exception to be noted.
    assert_eq!(
        model.formats().to_string(),
        "q_proj, k_proj, o_proj, gate_up_proj, down_proj NF4, unpacked; v_proj NF4, unpacked, but F32 in layer 1; \
         router, embedding, lm_head F32"
    );
    assert_eq!(model.formats().notes(), &[] as &[String]);
}

#[test]
fn scales_need_not_be_packed_themselves() {
    let mut model = Model::tiny();
    let name = |part: &str| format!("{QUERY}{part}");
    let absmax = &model.packed[&name(".absmax")].2;
    let nested_absmax = f32s(&model.packed[&name(".nested_absmax")].2);
    let state: Value = serde_json::from_slice(&model.packed[&name(STATE)].2).expect("JSON");
    let nested_offset = state["nested_offset"].as_f64().expect("a number") as f32;
    let nested_map = dynamic_map();
    let scales =
        Scales { codes: absmax, nested_absmax: &nested_absmax, nested_map: &nested_map, nested_offset };
    let scales = scales.decode().expect("consistent");
    let before = logits(&load_packed(&model).expect("loads"));
    let state =
        json!({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 64]}).to_string();
    model.packed.insert(name(".absmax"), (Dtype::F32, vec![scales.len()], f32_bytes(&scales)));
    model.packed.insert(name(STATE), (Dtype::U8, vec![state.len()], state.into_bytes()));
    let error = load_packed(&model).expect_err("parts are left over");
    assert!(matches!(&error, Error::QuantState { reason, .. } if reason.contains("nested")), "{error}");
    model.packed.remove(&name(".nested_absmax"));
    model.packed.remove(&name(".nested_quant_map"));
    assert_eq!(logits(&load_packed(&model).expect("loads")), before);
}

#[test]
fn every_part_of_every_layer_must_be_there_and_none_beside_them() {
    let whole = Model::tiny();
    let all: Vec<&String> = whole.packed.keys().collect();
    assert_eq!(all.iter().filter(|name| name.contains(".experts.")).count(), 2 * 2 * 4 * 7);
    for name in all.iter().filter(|name| name.contains("layers.0.") && !name.contains("projs.1.")) {
        let mut packed = whole.packed.clone();
        packed.remove(*name);
        let error = load(&packed, &whole.config).expect_err(name);
        let without = name.replace(".router.linear.", ".router.");
        // A packed matrix without its state is reported by its first missing part: the state.
        assert!(
            matches!(&error, Error::TensorMissing { name, .. } if *name == without),
            "{name} is gone, said is: {error}"
        );
    }
    for extra in [
        "model.layers.0.mlp.experts.gate_up_projs.4.weight",
        "model.layers.0.mlp.experts.gate_up_proj",
        "model.layers.0.self_attn.q_proj.weight.extra",
        "model.layers.0.self_attn.q_proj.weights",
    ] {
        let mut packed = whole.packed.clone();
        packed.insert(extra.into(), packed["model.norm.weight"].clone());
        let error = load(&packed, &whole.config).expect_err(extra);
        let said = matches!(&error, Error::TensorExtra { name, .. } | Error::TensorTwice { name, .. } if name == extra)
            || matches!(&error, Error::TensorShape { name, .. } if name == extra);
        assert!(said, "{extra}: {error}");
    }
    let mut model = Model::tiny();
    let router = model.packed["model.layers.0.mlp.router.linear.weight"].clone();
    model.packed.insert("model.layers.0.mlp.router.weight".into(), router);
    assert!(matches!(load_packed(&model), Err(Error::TensorTwice { .. })));
}

#[test]
fn a_state_that_describes_something_else_is_refused_by_name() {
    for (key, value, said) in [
        ("quant_type", json!("fp4"), "\"fp4\""),
        ("blocksize", json!(128), "blocks of 128"),
        ("dtype", json!("int8"), "\"int8\""),
        ("shape", json!([192, 32]), "[192, 32]"),
        ("nested_blocksize", json!(64), "blocks of 256"),
        ("nested_dtype", json!("float16"), "blocks of 256"),
        ("nested_offset", json!("x"), "invalid type"),
    ] {
        let mut model = Model::tiny();
        let entry = model.packed.get_mut(&format!("{GATE_UP}{STATE}")).expect("is there");
        let mut state: Value = serde_json::from_slice(&entry.2).expect("JSON");
        state[key] = value;
        entry.2 = state.to_string().into_bytes();
        entry.1 = vec![entry.2.len()];
        let error = load_packed(&model).expect_err(key);
        let named = matches!(&error, Error::QuantState { name, .. } if name.starts_with(GATE_UP));
        assert!(named && error.to_string().contains(said), "{key}: {error}");
    }
    for (part, dtype, length) in [
        ("", Dtype::U8, 6143),
        (".absmax", Dtype::U8, 191),
        (".absmax", Dtype::I8, 192),
        (".nested_absmax", Dtype::F32, 2),
        (".nested_quant_map", Dtype::F32, 255),
        (".quant_map", Dtype::F32, 15),
        (".quant_map", Dtype::BF16, 16),
    ] {
        let mut model = Model::tiny();
        let bytes = vec![0; length * dtype.bitsize() / 8];
        model.packed.insert(format!("{GATE_UP}{part}"), (dtype, vec![length], bytes));
        let error = load_packed(&model).expect_err(part);
        assert!(matches!(error, Error::QuantState { .. }), "{part} {dtype:?} {length}: {error}");
    }
}

#[test]
fn other_kinds_of_bitsandbytes_are_refused() {
    let mut model = Model::tiny();
    for (key, value) in [("load_in_4bit", json!(false)), ("bnb_4bit_quant_type", json!("fp4"))] {
        let mut config = model.config.clone();
        config["quantization_config"][key] = value;
        let error = load(&model.packed, &config).expect_err(key);
        assert!(matches!(&error, Error::Config { reason, .. } if reason.contains(key)), "{error}");
    }
    // Without the word in the configuration the parts have no place.
    model.config.as_object_mut().expect("an object").remove("quantization_config");
    assert!(matches!(load_packed(&model), Err(Error::TensorExtra { .. } | Error::TensorShape { .. })));
}
