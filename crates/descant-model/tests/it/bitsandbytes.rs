//! The layout of bitsandbytes: NF4 linear layers, an expert each, and everything that can be wrong with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use descant_model::{Bare, Batch, Error, GptOss};
use descant_quant::nf4::{Encoded, Precision, QUANT_MAP, Scales, decode, dynamic_map, encode};
use half::bf16;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde_json::{Value, json};

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A checkpoint in the layout of bitsandbytes, and the same numbers in the unpacked layout.
struct Pair {
    packed: Tensors,
    unpacked: Tensors,
    config: Value,
}

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden/peft_tiny/base")
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn bf16_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect()
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| values[r * columns + c])).collect()
}

impl Pair {
    /// peft_tiny, whose experts are unpacked, as bitsandbytes would have packed it.
    fn new() -> Self {
        let bytes = std::fs::read(base().join("model.safetensors")).expect("the fixture is there");
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let config = std::fs::read(base().join("config.json")).expect("the fixture is there");
        let mut config: Value = serde_json::from_slice(&config).expect("JSON");
        config["quantization_config"] = json!({
            "quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": true, "bnb_4bit_compute_dtype": "bfloat16",
        });
        let mut pair = Self { packed: Tensors::new(), unpacked: Tensors::new(), config };
        for (name, view) in file.tensors() {
            let (shape, values) = (view.shape().to_vec(), f32s(view.data()));
            // As dynamic checkpoints leave some layers alone, one is left alone here.
            let is_attention = name.contains("_proj.weight") && !name.contains("1.self_attn.v_proj");
            if let ([n, d_in, d_out], true) = (shape.as_slice(), name.contains(".experts.")) {
                let mut all = Vec::new();
                for (expert, values) in values.chunks(d_in * d_out).enumerate() {
                    let rows = transposed(values, *d_in, *d_out);
                    let numbers = pair.pack(&format!("{name}s.{expert}.weight"), &rows, [*d_out, *d_in]);
                    all.extend(transposed(&numbers, *d_out, *d_in));
                }
                pair.unpacked.insert(name, (Dtype::BF16, vec![*n, *d_in, *d_out], bf16_bytes(&all)));
            } else if let ([_, width], Some(projection)) = (shape.as_slice(), name.strip_suffix("_bias")) {
                for (expert, values) in values.chunks(*width).enumerate() {
                    let (name, data) = (format!("{projection}s.{expert}.bias"), f32_bytes(values));
                    pair.packed.insert(name, (Dtype::F32, vec![*width], data));
                }
                pair.unpacked.insert(name, (Dtype::F32, shape, view.data().to_vec()));
            } else if let ([rows, columns], true) = (shape.as_slice(), is_attention) {
                let numbers = pair.pack(&name, &values, [*rows, *columns]);
                pair.unpacked.insert(name, (Dtype::BF16, shape, bf16_bytes(&numbers)));
            } else {
                let plain = (Dtype::F32, shape, view.data().to_vec());
                pair.packed.insert(name.replace("0.mlp.router.", "0.mlp.router.linear."), plain.clone());
                pair.unpacked.insert(name, plain);
            }
        }
        pair
    }

    /// Writes a matrix packed; the numbers that it then holds.
    fn pack(&mut self, name: &str, values: &[f32], shape: [usize; 2]) -> Vec<f32> {
        let Encoded { packed, codes, nested_absmax, nested_offset } = encode(values).expect("finite");
        let nested_map = dynamic_map();
        let scales =
            Scales { codes: &codes, nested_absmax: &nested_absmax, nested_map: &nested_map, nested_offset };
        let scales = scales.decode().expect("consistent");
        let mut numbers = vec![0.0; values.len()];
        decode(&packed, &scales, &QUANT_MAP, Precision::Bf16, &mut numbers).expect("consistent");
        let state = json!({
            "quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": shape,
            "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": nested_offset,
        });
        let state = state.to_string().into_bytes();
        for (part, dtype, shape, data) in [
            ("", Dtype::U8, vec![packed.len(), 1], packed.clone()),
            (".absmax", Dtype::U8, vec![codes.len()], codes.clone()),
            (".nested_absmax", Dtype::F32, vec![nested_absmax.len()], f32_bytes(&nested_absmax)),
            (".nested_quant_map", Dtype::F32, vec![256], f32_bytes(&nested_map)),
            (".quant_map", Dtype::F32, vec![16], f32_bytes(&QUANT_MAP)),
            (".quant_state.bitsandbytes__nf4", Dtype::U8, vec![state.len()], state),
        ] {
            self.packed.insert(format!("{name}{part}"), (dtype, shape, data));
        }
        numbers
    }

    fn load(&self) -> Result<GptOss, Error> {
        load(&self.packed, &self.config)
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own folder need not survive a crash")]
fn put(path: PathBuf, bytes: impl AsRef<[u8]>) {
    std::fs::write(path, bytes).expect("writes");
}

fn load(tensors: &Tensors, config: &Value) -> Result<GptOss, Error> {
    let dir = tempfile::tempdir().expect("a folder");
    put(dir.path().join("config.json"), config.to_string());
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), data).expect("consistent"))
    });
    put(dir.path().join("model.safetensors"), serialize(views, None).expect("serializes"));
    GptOss::load(dir.path(), &Device::flex())
}

fn logits(model: &GptOss) -> Vec<f32> {
    let ids: Vec<u32> = (0..20).map(|i| i * 7 % 256).collect();
    let batch = Batch::new([ids.as_slice()], 256).expect("valid");
    model.logits(model.hidden(&batch, &Bare)).into_data().try_to_vec().expect("f32")
}

const GATE_UP: &str = "model.layers.1.mlp.experts.gate_up_projs.2.weight";
const QUERY: &str = "model.layers.0.self_attn.q_proj.weight";
const STATE: &str = ".quant_state.bitsandbytes__nf4";

#[test]
fn packed_layers_compute_what_their_numbers_compute_unpacked() {
    let pair = Pair::new();
    let mut plain = pair.config.clone();
    plain.as_object_mut().expect("an object").remove("quantization_config");
    let unpacked = logits(&load(&pair.unpacked, &plain).expect("loads"));
    assert_eq!(logits(&pair.load().expect("loads")), unpacked);
    // The comparison can fail: one nibble of one expert is enough.
    let mut other = Pair::new();
    other.packed.get_mut(GATE_UP).expect("is there").2[7] ^= 0x30;
    assert_ne!(logits(&other.load().expect("loads")), unpacked);
}

#[test]
fn scales_need_not_be_packed_themselves() {
    let mut pair = Pair::new();
    let name = |part: &str| format!("{QUERY}{part}");
    let absmax = &pair.packed[&name(".absmax")].2;
    let nested_absmax = f32s(&pair.packed[&name(".nested_absmax")].2);
    let state: Value = serde_json::from_slice(&pair.packed[&name(STATE)].2).expect("JSON");
    let nested_offset = state["nested_offset"].as_f64().expect("a number") as f32;
    let nested_map = dynamic_map();
    let scales =
        Scales { codes: absmax, nested_absmax: &nested_absmax, nested_map: &nested_map, nested_offset };
    let scales = scales.decode().expect("consistent");
    let before = logits(&pair.load().expect("loads"));
    let state =
        json!({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 64]}).to_string();
    pair.packed.insert(name(".absmax"), (Dtype::F32, vec![scales.len()], f32_bytes(&scales)));
    pair.packed.insert(name(STATE), (Dtype::U8, vec![state.len()], state.into_bytes()));
    let error = pair.load().expect_err("parts are left over");
    assert!(matches!(&error, Error::QuantState { reason, .. } if reason.contains("nested")), "{error}");
    pair.packed.remove(&name(".nested_absmax"));
    pair.packed.remove(&name(".nested_quant_map"));
    assert_eq!(logits(&pair.load().expect("loads")), before);
}

#[test]
fn every_part_of_every_layer_must_be_there_and_none_beside_them() {
    let whole = Pair::new();
    let all: Vec<&String> = whole.packed.keys().collect();
    assert_eq!(all.iter().filter(|name| name.contains(".experts.")).count(), 2 * 2 * 4 * 7);
    for name in all.iter().filter(|name| name.contains("layers.0.") && !name.contains("projs.1.")) {
        let mut packed = whole.packed.clone();
        packed.remove(*name);
        let error = load(&packed, &whole.config).expect_err(name);
        let without = name.replace(".router.linear.", ".router.");
        // A packed matrix of which the state is gone is told by its first part that is missing: the state.
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
    let mut pair = Pair::new();
    let router = pair.packed["model.layers.0.mlp.router.linear.weight"].clone();
    pair.packed.insert("model.layers.0.mlp.router.weight".into(), router);
    assert!(matches!(pair.load(), Err(Error::TensorTwice { .. })));
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
        let mut pair = Pair::new();
        let entry = pair.packed.get_mut(&format!("{GATE_UP}{STATE}")).expect("is there");
        let mut state: Value = serde_json::from_slice(&entry.2).expect("JSON");
        state[key] = value;
        entry.2 = state.to_string().into_bytes();
        entry.1 = vec![entry.2.len()];
        let error = pair.load().expect_err(key);
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
        let mut pair = Pair::new();
        let bytes = vec![0; length * dtype.bitsize() / 8];
        pair.packed.insert(format!("{GATE_UP}{part}"), (dtype, vec![length], bytes));
        let error = pair.load().expect_err(part);
        assert!(matches!(error, Error::QuantState { .. }), "{part} {dtype:?} {length}: {error}");
    }
}

#[test]
fn other_kinds_of_bitsandbytes_are_refused() {
    let mut pair = Pair::new();
    for (key, value) in [("load_in_4bit", json!(false)), ("bnb_4bit_quant_type", json!("fp4"))] {
        let mut config = pair.config.clone();
        config["quantization_config"][key] = value;
        let error = load(&pair.packed, &config).expect_err(key);
        assert!(matches!(&error, Error::Config { reason, .. } if reason.contains(key)), "{error}");
    }
    // Without the word in the configuration the parts have no place.
    pair.config.as_object_mut().expect("an object").remove("quantization_config");
    assert!(matches!(pair.load(), Err(Error::TensorExtra { .. } | Error::TensorShape { .. })));
}
