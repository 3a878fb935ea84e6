//! What bitsandbytes packs, for tests: a matrix as NF4 with double quantization, and a small model of such matrices.

use std::path::Path;

use descant_quant::mxfp4;
pub use descant_quant::nf4::{BLOCK, Packed, Stack};
use descant_quant::nf4::{Encoded, Precision, QUANT_MAP, Scales, decode, dynamic_map, encode};
use half::bf16;
use serde_json::{Value, json};

use crate::shard::{Dtype, Tensors, f32_bytes, f32s, tensors_of};

/// What follows the name of a matrix in the name of its state.
pub const STATE: &str = ".quant_state.bitsandbytes__nf4";

/// Puts a matrix into `tensors`, packed: six of them. Gives the numbers that it then holds, which are BF16's.
///
/// # Panics
/// A value is not finite.
pub fn pack(tensors: &mut Tensors, name: &str, values: &[f32], shape: [usize; 2]) -> Vec<f32> {
    let Encoded { packed, codes, nested_absmax, nested_offset } = encode(values).expect("finite");
    let nested_map = dynamic_map();
    let scales =
        Scales { codes: &codes, nested_absmax: &nested_absmax, nested_map: &nested_map, nested_offset };
    let scales = scales.decode().expect("as they were encoded");
    let mut numbers = vec![0.0; values.len()];
    decode(&packed, &scales, &QUANT_MAP, Precision::Bf16, &mut numbers).expect("as they were encoded");
    let state = json!({
        "quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": shape,
        "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": nested_offset,
    });
    let state = state.to_string().into_bytes();
    for (part, dtype, shape, data) in [
        (".absmax", Dtype::U8, vec![codes.len()], codes),
        (".nested_absmax", Dtype::F32, vec![nested_absmax.len()], f32_bytes(&nested_absmax)),
        (".nested_quant_map", Dtype::F32, vec![256], f32_bytes(&nested_map)),
        (".quant_map", Dtype::F32, vec![16], f32_bytes(&QUANT_MAP)),
        (STATE, Dtype::U8, vec![state.len()], state),
        ("", Dtype::U8, vec![packed.len(), 1], packed),
    ] {
        tensors.insert(format!("{name}{part}"), (dtype, shape, data));
    }
    numbers
}

/// A model as bitsandbytes would have packed it, and the same numbers in the unpacked layout.
#[derive(Debug, Clone)]
pub struct Model {
    /// The `config.json` of the packed one; without its `quantization_config` it is that of the other.
    pub config: Value,
    /// What is packed.
    pub packed: Tensors,
    /// What is not.
    pub unpacked: Tensors,
}

impl Model {
    /// peft_tiny of the golden files, whose experts are unpacked.
    ///
    /// # Panics
    /// The fixture is not there.
    pub fn tiny() -> Self {
        Self::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden/peft_tiny/base"))
    }

    /// The model of a directory, whose experts may be MXFP4. As dynamic checkpoints leave some layers alone, one is left
    /// alone here; and one router is wrapped, as some versions have it.
    ///
    /// # Panics
    /// It is not there, or not in one file.
    pub fn of(dir: &Path) -> Self {
        let read = |name: &str| std::fs::read(dir.join(name)).expect("the model is there");
        let mut config: Value = serde_json::from_slice(&read("config.json")).expect("JSON");
        config["quantization_config"] = json!({
            "quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": true, "bnb_4bit_compute_dtype": "bfloat16",
        });
        let mut model = Self { config, packed: Tensors::new(), unpacked: Tensors::new() };
        for (name, (dtype, shape, bytes)) in without_mxfp4(tensors_of(&read("model.safetensors"))) {
            let values = floats(dtype, &bytes);
            let is_packed = name.contains("_proj.weight") && !name.contains("1.self_attn.v_proj");
            if let ([n, d_in, d_out], true) = (shape.as_slice(), name.contains(".experts.")) {
                let mut all = Vec::new();
                for (expert, values) in values.chunks(d_in * d_out).enumerate() {
                    let (rows, name) =
                        (transposed(values, *d_in, *d_out), format!("{name}s.{expert}.weight"));
                    let numbers = pack(&mut model.packed, &name, &rows, [*d_out, *d_in]);
                    all.extend(transposed(&numbers, *d_out, *d_in));
                }
                model.unpacked.insert(name, (Dtype::BF16, vec![*n, *d_in, *d_out], bf16_bytes(&all)));
            } else if let ([_, width], Some(projection)) = (shape.as_slice(), name.strip_suffix("_bias")) {
                for (expert, values) in values.chunks(*width).enumerate() {
                    let (name, data) = (format!("{projection}s.{expert}.bias"), f32_bytes(values));
                    model.packed.insert(name, (Dtype::F32, vec![*width], data));
                }
                model.unpacked.insert(name, (dtype, shape, bytes));
            } else if let ([rows, columns], true) = (shape.as_slice(), is_packed) {
                let numbers = pack(&mut model.packed, &name, &values, [*rows, *columns]);
                model.unpacked.insert(name, (Dtype::BF16, shape, bf16_bytes(&numbers)));
            } else {
                let plain = (dtype, shape, bytes);
                model.packed.insert(name.replace("0.mlp.router.", "0.mlp.router.linear."), plain.clone());
                model.unpacked.insert(name, plain);
            }
        }
        model
    }
}

/// The numbers of a tensor, F32 or BF16.
fn floats(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::BF16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        _ => f32s(bytes),
    }
}

/// The same with packed experts as the unpacked layout has them, `[experts, in, out]`.
fn without_mxfp4(mut tensors: Tensors) -> Tensors {
    let packed: Vec<String> =
        tensors.keys().filter_map(|name| name.strip_suffix("_blocks")).map(str::to_owned).collect();
    for name in packed {
        let (_, shape, blocks) = tensors.remove(&format!("{name}_blocks")).expect("it was listed");
        let (.., scales) = tensors.remove(&format!("{name}_scales")).expect("scales are beside blocks");
        let (experts, d_out, d_in) = (shape[0], shape[1], shape[2] * mxfp4::BLOCK);
        let mut values = vec![0.0; experts * d_out * d_in];
        mxfp4::decode(&blocks, &scales, &mut values);
        let values: Vec<f32> =
            values.chunks(d_out * d_in).flat_map(|rows| transposed(rows, d_out, d_in)).collect();
        tensors.insert(name, (Dtype::BF16, vec![experts, d_in, d_out], bf16_bytes(&values)));
    }
    tensors
}

fn bf16_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect()
}

fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| values[r * columns + c])).collect()
}
