//! Checkpoints of bitsandbytes: NF4 under the names of its linear layers, every expert a layer of its own.
//!
//! ```text
//! X.weight                                  U8 [out * in / 2, 1]; two numbers a byte
//! X.weight.absmax                           U8 [blocks of 64]; F32 without double quantization
//! X.weight.nested_absmax                    F32 [blocks / 256], with double quantization
//! X.weight.nested_quant_map                 F32 [256], with double quantization
//! X.weight.quant_map                        F32 [16]
//! X.weight.quant_state.bitsandbytes__nf4    U8, JSON
//! X.bias                                    as ever
//! ```
//!
//! `X` is `self_attn.q_proj`, `mlp.experts.gate_up_projs.7`, `mlp.router.linear` and so on. Dynamic checkpoints leave
//! some layers alone; those have a plain `X.weight`. What comes in here goes out as the tensors of the unpacked layout,
//! with the numbers that bitsandbytes computes with. So nothing behind knows of NF4, and it takes the memory of BF16.

use std::collections::BTreeMap;
use std::path::Path;

use descant_quant::nf4::{self, Precision, Scales};
use half::bf16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::names::{LinearLayer, Part};

/// What follows `.weight` in the names of a packed matrix, `.weight` itself first.
const PARTS: [&str; 6] =
    ["", ".absmax", ".nested_absmax", ".nested_quant_map", ".quant_map", ".quant_state.bitsandbytes__nf4"];
const STATE: &str = PARTS[5];

/// The tensors of a packed matrix, by what follows `.weight` in their names.
pub type Nf4Parts = BTreeMap<&'static str, (Dtype, Vec<u8>)>;

/// The numbers of a packed matrix `[d_out, d_in]`, as bitsandbytes computes with them, and whether they are BF16.
///
/// `part` reads what follows the name of the matrix's `.weight`, if it is there; `path` and `name` are for errors.
///
/// # Errors
/// A part is missing, or does not describe such a matrix.
pub fn unpack_nf4(
    path: &Path,
    name: &str,
    [d_out, d_in]: [usize; 2],
    mut part: impl FnMut(&str) -> Result<Option<(Dtype, Vec<u8>)>>,
) -> Result<(Vec<f32>, bool)> {
    let file = File { path, name };
    let mut parts = Nf4Parts::new();
    for suffix in PARTS {
        parts.extend(part(suffix)?.map(|found| (suffix, found)));
    }
    let state = parts.get(STATE).ok_or_else(|| file.bad(format!("`{name}{STATE}` is missing")))?;
    let state: State = serde_json::from_slice(&state.1).map_err(|error| file.bad(error.to_string()))?;
    let numbers = unpacked(&file, [d_out, d_in], &state, &parts)?;
    Ok((numbers.values, numbers.dtype == Dtype::BF16))
}

/// A tensor of the unpacked layout.
pub(super) struct Unpacked {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Vec<u8>,
}

/// What became of a tensor of the file.
pub(super) enum Taken {
    /// It is none of a linear layer's.
    Other,
    /// It waits for others.
    Held,
    /// With it this one is complete.
    Whole(Unpacked),
}

/// Turns the tensors of a checkpoint, one after the other, into those of the unpacked layout.
pub(super) struct Unpacker {
    layers: BTreeMap<String, Layer>,
    /// Parts of packed matrices of which some have not come yet.
    open: BTreeMap<String, Nf4Parts>,
    /// Experts of which some have not come yet, by the name of what they become.
    stacks: BTreeMap<String, Stack>,
}

/// A linear layer, and what it becomes.
#[derive(Clone)]
struct Layer {
    /// Names of weight and bias in the unpacked layout.
    weight: String,
    bias: String,
    d_out: usize,
    d_in: usize,
    /// Which expert it is, of how many.
    expert: Option<(usize, usize)>,
}

/// `[experts, ...]`, expert by expert: what is not there yet takes no memory, however many the configuration speaks of.
struct Stack {
    dtype: Dtype,
    experts: BTreeMap<usize, Vec<u8>>,
}

/// Numbers in the type they are computed with: two bytes each as BF16, else four.
struct Numbers {
    dtype: Dtype,
    values: Vec<f32>,
}

/// The JSON beside a packed matrix.
#[derive(Deserialize)]
struct State {
    quant_type: String,
    blocksize: usize,
    dtype: String,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_dtype: Option<String>,
    nested_offset: Option<f32>,
}

impl Unpacker {
    pub(super) fn new(config: &Config) -> Self {
        let mut layers = BTreeMap::new();
        for linear in LinearLayer::all(config) {
            let layer = Layer {
                weight: linear.weight.name(),
                // lm_head has none, and one that came would have no place.
                bias: linear.bias.map_or_else(|| "lm_head.bias".to_owned(), Part::name),
                d_out: linear.d_out,
                d_in: linear.d_in,
                expert: linear.expert.map(|expert| (expert, config.num_local_experts)),
            };
            layers.extend(linear.names().into_iter().map(|name| (name, layer.clone())));
        }
        Self { layers, open: BTreeMap::new(), stacks: BTreeMap::new() }
    }

    /// Takes a tensor of the file.
    pub(super) fn take(&mut self, path: &Path, name: &str, view: &TensorView<'_>) -> Result<Taken> {
        // What is neither the weight of a layer, nor a part of it, nor its bias is not ours to judge.
        let (base, part) = match (name.split_once(".weight"), name.strip_suffix(".bias")) {
            (Some((base, rest)), _) => match PARTS.into_iter().find(|part| *part == rest) {
                Some(part) => (base, Some(part)),
                None => return Ok(Taken::Other),
            },
            (None, Some(base)) => (base, None),
            (None, None) => return Ok(Taken::Other),
        };
        let Some(layer) = self.layers.get(base).cloned() else { return Ok(Taken::Other) };
        let file = File { path, name };
        let Some(part) = part else {
            let numbers = file.plain(view, &[layer.d_out])?;
            return self.place(&file, &layer, &layer.bias, vec![layer.d_out], &numbers);
        };
        if part.is_empty() && view.dtype() != Dtype::U8 {
            let numbers = file.plain(view, &[layer.d_out, layer.d_in])?;
            return self.place_matrix(&file, &layer, numbers);
        }
        let parts = self.open.entry(base.to_owned()).or_default();
        parts.insert(part, (view.dtype(), view.data().to_vec()));
        // Which parts there are is known once the state is there.
        let Some(state) = parts.get(STATE) else { return Ok(Taken::Held) };
        let state: State = serde_json::from_slice(&state.1).map_err(|error| file.bad(error.to_string()))?;
        let wanted = |part: &&str| state.nested_offset.is_some() || !part.starts_with(".nested");
        if !PARTS.iter().copied().filter(wanted).all(|part| parts.contains_key(part)) {
            return Ok(Taken::Held);
        }
        let parts = self.open.remove(base).unwrap_or_default();
        let numbers = unpacked(&file, [layer.d_out, layer.d_in], &state, &parts)?;
        self.place_matrix(&file, &layer, numbers)
    }

    /// Every matrix that was begun must have ended.
    pub(super) fn finish(self, dir: &Path) -> Result<()> {
        let missing = |name: String| Error::TensorMissing { dir: dir.to_owned(), name };
        if let Some((base, parts)) = self.open.into_iter().next() {
            let part = PARTS.into_iter().find(|part| !parts.contains_key(part)).unwrap_or_default();
            return Err(missing(format!("{base}.weight{part}")));
        }
        match self.stacks.into_iter().next() {
            None => Ok(()),
            Some((name, stack)) => {
                let mut experts = 0..=stack.experts.len();
                let expert = experts.find(|expert| !stack.experts.contains_key(expert)).unwrap_or(0);
                let (base, part) =
                    name.strip_suffix("_bias").map_or((name.as_str(), "weight"), |base| (base, "bias"));
                Err(missing(format!("{base}s.{expert}.{part}")))
            }
        }
    }

    /// A matrix `[out, in]` to its place; experts lie the other way round in the unpacked layout.
    fn place_matrix(&mut self, file: &File<'_>, layer: &Layer, numbers: Numbers) -> Result<Taken> {
        let (d_out, d_in) = (layer.d_out, layer.d_in);
        if layer.expert.is_none() {
            return self.place(file, layer, &layer.weight, vec![d_out, d_in], &numbers);
        }
        let numbers = Numbers { values: transposed(&numbers.values, d_out, d_in), ..numbers };
        self.place(file, layer, &layer.weight, vec![d_in, d_out], &numbers)
    }

    fn place(
        &mut self,
        file: &File<'_>,
        layer: &Layer,
        name: &str,
        shape: Vec<usize>,
        numbers: &Numbers,
    ) -> Result<Taken> {
        let bytes = numbers.to_bytes();
        let whole =
            |shape, dtype, bytes| Taken::Whole(Unpacked { name: name.to_owned(), dtype, shape, bytes });
        let Some((expert, n)) = layer.expert else { return Ok(whole(shape, numbers.dtype, bytes)) };
        let new = || Stack { dtype: numbers.dtype, experts: BTreeMap::new() };
        let stack = self.stacks.entry(name.to_owned()).or_insert_with(new);
        if stack.dtype != numbers.dtype {
            return Err(file.bad("its numbers have another type than those of the experts before it"));
        }
        stack.experts.insert(expert, bytes);
        if stack.experts.len() < n {
            return Ok(Taken::Held);
        }
        let stack = self.stacks.remove(name).expect("it was there a moment ago");
        let mut bytes = Vec::with_capacity(stack.experts.values().map(Vec::len).sum());
        // Each is given back when it has been copied.
        stack.experts.into_values().for_each(|expert| bytes.extend(expert));
        Ok(whole([vec![n], shape].concat(), stack.dtype, bytes))
    }
}

/// A tensor in a file, for errors.
struct File<'a> {
    path: &'a Path,
    name: &'a str,
}

impl File<'_> {
    fn bad(&self, reason: impl Into<String>) -> Error {
        let (path, name) = (self.path.display().to_string(), self.name.to_owned());
        Error::QuantState { path, name, reason: reason.into() }
    }

    /// A tensor that is not packed.
    fn plain(&self, view: &TensorView<'_>, expected: &[usize]) -> Result<Numbers> {
        let (path, name) = (self.path.display().to_string(), self.name.to_owned());
        if view.shape() != expected {
            let (expected, actual) = (expected.to_vec(), view.shape().to_vec());
            return Err(Error::TensorShape { path, name, expected, actual });
        }
        let actual = format!("{:?}", view.dtype());
        let mistyped = Error::TensorType { path, name, expected: "BF16, F16 or F32, or packed U8", actual };
        let values = super::floats(view).ok_or(mistyped)?;
        let dtype = if view.dtype() == Dtype::BF16 { Dtype::BF16 } else { Dtype::F32 };
        Ok(Numbers { dtype, values })
    }
}

impl Numbers {
    fn to_bytes(&self) -> Vec<u8> {
        match self.dtype {
            Dtype::BF16 => self.values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
            _ => self.values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }
}

/// A packed matrix, of which every part is there.
fn unpacked(file: &File<'_>, [d_out, d_in]: [usize; 2], state: &State, parts: &Nf4Parts) -> Result<Numbers> {
    let elements = d_out * d_in;
    if state.quant_type != "nf4" || state.blocksize != nf4::BLOCK {
        let (kind, block) = (&state.quant_type, state.blocksize);
        return Err(
            file.bad(format!("it is {kind:?} in blocks of {block}; expected \"nf4\" in blocks of 64"))
        );
    }
    if state.shape != [d_out, d_in] {
        return Err(
            file.bad(format!("its shape is {:?}; the configuration says [{d_out}, {d_in}]", state.shape))
        );
    }
    let (precision, dtype) = match state.dtype.as_str() {
        "bfloat16" => (Precision::Bf16, Dtype::BF16),
        "float16" => (Precision::F16, Dtype::F32),
        "float32" => (Precision::F32, Dtype::F32),
        other => return Err(file.bad(format!("its dtype is {other:?}"))),
    };
    let bytes = |part: &str| match parts.get(part) {
        Some((Dtype::U8, bytes)) => Ok(bytes.as_slice()),
        _ => Err(file.bad(format!("`.weight{part}` is not U8"))),
    };
    let numbers = |part: &str| match parts.get(part) {
        Some((Dtype::F32, bytes)) => Ok(bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect::<Vec<_>>()),
        _ => Err(file.bad(format!("`.weight{part}` is not F32"))),
    };
    if state.nested_offset.is_none() && parts.keys().any(|part| part.starts_with(".nested")) {
        return Err(file.bad("it has nested scales and no nested_offset"));
    }
    let scales = if let Some(nested_offset) = state.nested_offset {
        if state.nested_blocksize != Some(nf4::NESTED_BLOCK)
            || state.nested_dtype.as_deref() != Some("float32")
        {
            return Err(file.bad("its scales are not float32 in blocks of 256"));
        }
        let (absmax, map) = (numbers(PARTS[2])?, numbers(PARTS[3])?);
        let codes = bytes(PARTS[1])?;
        let scales = Scales { codes, nested_absmax: &absmax, nested_map: &map, nested_offset };
        scales.decode().map_err(|error| file.bad(error.to_string()))?
    } else {
        numbers(PARTS[1])?
    };
    let packed = bytes(PARTS[0])?;
    if packed.len() != elements.div_ceil(2) {
        let reason = format!("it has {} bytes; its shape says {}", packed.len(), elements.div_ceil(2));
        return Err(file.bad(reason));
    }
    let mut values = vec![0.0; elements];
    nf4::decode(packed, &scales, &numbers(PARTS[4])?, precision, &mut values)
        .map_err(|error| file.bad(error.to_string()))?;
    Ok(Numbers { dtype, values })
}

/// `[rows, columns]` with its axes changed; in tiles, since one of the two is always far apart in memory.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const TILE: usize = 32;
    let mut out = vec![0.0; values.len()];
    for row in (0..rows).step_by(TILE) {
        for column in (0..columns).step_by(TILE) {
            for r in row..rows.min(row + TILE) {
                for c in column..columns.min(column + TILE) {
                    out[c * rows + r] = values[r * columns + c];
                }
            }
        }
    }
    out
}
