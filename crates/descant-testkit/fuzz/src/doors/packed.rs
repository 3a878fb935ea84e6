//! Checkpoints of bitsandbytes.

use descant_model::Config;
use descant_testkit::nf4::{Model, STATE, pack};
use descant_testkit::shard::{Dtype, Tensors, f32_bytes, file_of};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use serde_json::{Map, Value, json};

use super::models::changed;
use super::{Opened, folder, put};

/// A layer of two small experts.
fn config() -> Config {
    let mut config = Model::tiny().config;
    for (key, value) in [
        ("hidden_size", json!(32)),
        ("intermediate_size", json!(32)),
        ("num_hidden_layers", json!(1)),
        ("layer_types", json!(["full_attention"])),
        ("num_local_experts", json!(2)),
        ("num_experts_per_tok", json!(1)),
        ("num_attention_heads", json!(2)),
        ("num_key_value_heads", json!(1)),
    ] {
        config[key] = value;
    }
    Config::from_slice(config.to_string().as_bytes()).expect("a good configuration")
}

/// Some of its tensors: packed ones, one of them without double quantization, unpacked ones, and one that is
/// not a linear layer's. What unpacks them asks for no other.
fn good() -> Tensors {
    let values = |n: usize| (0..n).map(|at| (at as f32 * 0.7).sin()).collect::<Vec<_>>();
    let floats = |n: usize| (Dtype::F32, vec![n], f32_bytes(&values(n)));
    let (mut all, layer) = (Tensors::new(), "model.layers.0");
    for expert in 0..2 {
        let name = format!("{layer}.mlp.experts.down_projs.{expert}");
        pack(&mut all, &format!("{name}.weight"), &values(32 * 32), [32, 32]);
        all.insert(format!("{name}.bias"), floats(32));
    }
    let plain = format!("{layer}.self_attn.q_proj.weight");
    pack(&mut all, &plain, &values(32 * 32), [32, 32]);
    for part in [".nested_absmax", ".nested_quant_map"] {
        all.remove(&format!("{plain}{part}"));
    }
    let state =
        json!({"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [32, 32]}).to_string();
    all.insert(format!("{plain}{STATE}"), (Dtype::U8, vec![state.len()], state.into_bytes()));
    all.insert(format!("{plain}.absmax"), floats(16));
    all.insert(format!("{layer}.self_attn.k_proj.weight"), (Dtype::BF16, vec![16, 32], vec![0; 1024]));
    all.insert(format!("{layer}.mlp.router.linear.bias"), floats(2));
    all.insert("model.norm.weight".to_owned(), floats(32));
    all
}

/// Bytes choose one change of a file that is good otherwise: whatever comes out must be as long as it says.
pub(super) fn nf4() -> Opened {
    let (dir, config, good) = (folder(), config(), good());
    let (path, file) = (dir.join("model.safetensors"), file_of(&good));
    put(&path, &file);
    assert_eq!(descant_model::unpacked(&dir, &config).expect("a good file").len(), 5);
    let door = move |bytes: &[u8]| {
        let mut choice = Unstructured::new(bytes);
        let changed = match choice.arbitrary() {
            Ok(true) => other(good.clone(), &mut choice).map(|tensors| file_of(&tensors)),
            _ => changed(&file, &mut choice),
        };
        put(&path, &changed.unwrap_or_else(|_| bytes.to_vec()));
        for (name, dtype, shape, bytes) in descant_model::unpacked(&dir, &config).unwrap_or_default() {
            let said = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            assert_eq!(bytes, said, "{name} is {dtype:?} {shape:?}");
        }
    };
    // Of each kind of change one, in the first and in a later tensor.
    let seeds = (0..=7).flat_map(|kind| [1, 9].map(|at| [[1, at, kind].as_slice(), &[7; 24]].concat()));
    (Box::new(door), seeds.chain([vec![0; 8], vec![0x55; 64]]).collect())
}

/// One tensor changed so that the file around it is still good.
fn other(mut tensors: Tensors, choice: &mut Unstructured<'_>) -> Result<Tensors> {
    let name = tensors.keys().nth(choice.choose_index(tensors.len())?).expect("below their number").clone();
    let (mut dtype, mut shape, mut bytes) = tensors.remove(&name).expect("it is there");
    let mut kept = name.clone();
    match choice.int_in_range(0..=7)? {
        // Most of what can be wrong lies in the state.
        0..=2 if name.ends_with(STATE) => bytes = other_state(&bytes, choice)?,
        0 => bytes = choice.arbitrary::<Vec<u8>>()?,
        1 => {
            dtype =
                *choice.choose(&[Dtype::U8, Dtype::I8, Dtype::BF16, Dtype::F16, Dtype::F32, Dtype::F64])?
        }
        2 => shape = vec![choice.arbitrary::<u8>()?.into(), choice.arbitrary::<u8>()?.into()],
        3 => bytes.truncate(choice.choose_index(bytes.len() + 1)?),
        4 => bytes.extend(choice.arbitrary::<Vec<u8>>()?),
        5 if bytes.len() > 4 => {
            let at = choice.choose_index(bytes.len() - 4)?;
            bytes[at..at + 4].copy_from_slice(&choice.arbitrary::<u32>()?.to_le_bytes());
        }
        6 => kept = choice.choose(&tensors.keys().cloned().collect::<Vec<_>>())?.clone(),
        // It is gone.
        _ => return Ok(tensors),
    }
    // The shape follows the bytes, where it does not say as many.
    let size = dtype.bitsize() / 8;
    if shape.iter().product::<usize>() * size != bytes.len() {
        bytes.truncate(bytes.len() / size * size);
        shape = vec![bytes.len() / size];
    }
    tensors.insert(kept, (dtype, shape, bytes));
    Ok(tensors)
}

/// Another text, or one key of it changed or gone.
fn other_state(state: &[u8], choice: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut state: Map<String, Value> = serde_json::from_slice(state).expect("a good state");
    let key = state.keys().nth(choice.choose_index(state.len())?).expect("below their number").clone();
    state[&key] = match choice.int_in_range(0..=6)? {
        0 => json!(choice.arbitrary::<i64>()?),
        1 => json!(choice.arbitrary::<f64>()?),
        2 => json!([choice.arbitrary::<u64>()?, choice.arbitrary::<u64>()?]),
        3 => json!(*choice.choose(&["nf4", "fp4", "bfloat16", "float16", "float32", ""])?),
        4 => Value::Null,
        5 => return choice.arbitrary(),
        _ => {
            state.remove(&key);
            return Ok(Value::Object(state).to_string().into_bytes());
        }
    };
    Ok(Value::Object(state).to_string().into_bytes())
}
