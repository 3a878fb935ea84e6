//! A matrix that bitsandbytes packed, from the parts that a checkpoint has of it.
//!
//! ```text
//! X.weight                                  U8 [out * in / 2, 1]; two numbers a byte
//! X.weight.absmax                           U8 [blocks of 64]; F32 without double quantization
//! X.weight.nested_absmax                    F32 [blocks / 256], with double quantization
//! X.weight.nested_quant_map                 F32 [256], with double quantization
//! X.weight.quant_map                        F32 [16]
//! X.weight.quant_state.bitsandbytes__nf4    U8, JSON
//! ```
//!
//! What is large stays in the file, which stays mapped meanwhile. Which matrix belongs where is the business of
//! `bitsandbytes.rs`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use descant_quant::nf4::{self, Precision, Scales};
use half::bf16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::shards::Bytes;

/// What follows `.weight` in the names of a packed matrix, `.weight` itself first.
pub(super) const PARTS: [&str; 6] =
    ["", ".absmax", ".nested_absmax", ".nested_quant_map", ".quant_map", ".quant_state.bitsandbytes__nf4"];
pub(super) const STATE: &str = PARTS[5];

/// The tensors of a packed matrix, by what follows `.weight` in their names.
pub(super) type Nf4Parts = BTreeMap<&'static str, (Dtype, Bytes)>;

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
        parts.extend(part(suffix)?.map(|(dtype, bytes)| (suffix, (dtype, Bytes::Read(bytes)))));
    }
    let state = parts.get(STATE).ok_or_else(|| file.bad(format!("`{name}{STATE}` is missing")))?;
    let state = State::read(&file, &state.1)?;
    let matrix = Matrix::new(&file, [d_out, d_in], &state, parts)?;
    let numbers = matrix.numbers(&file)?;
    Ok((numbers.values, numbers.dtype == Dtype::BF16))
}

/// Numbers in the type they are computed with: two bytes each as BF16, else four.
pub(super) struct Numbers {
    pub(super) dtype: Dtype,
    pub(super) values: Vec<f32>,
    pub(super) was_packed: bool,
}

/// The JSON beside a packed matrix.
#[derive(Deserialize)]
pub(super) struct State {
    quant_type: String,
    blocksize: usize,
    dtype: String,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_dtype: Option<String>,
    pub(super) nested_offset: Option<f32>,
}

impl State {
    pub(super) fn read(file: &File<'_>, json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|error| file.bad(error.to_string()))
    }
}

/// A tensor in a file, for errors.
pub(super) struct File<'a> {
    pub(super) path: &'a Path,
    pub(super) name: &'a str,
}

impl File<'_> {
    pub(super) fn bad(&self, reason: impl Into<String>) -> Error {
        let (path, name) = (self.path.display().to_string(), self.name.to_owned());
        Error::QuantState { path, name, reason: reason.into() }
    }

    /// A tensor that is not packed.
    pub(super) fn plain(&self, view: &TensorView<'_>, expected: &[usize]) -> Result<Numbers> {
        let (path, name) = (self.path.display().to_string(), self.name.to_owned());
        if view.shape() != expected {
            let (expected, actual) = (expected.to_vec(), view.shape().to_vec());
            return Err(Error::TensorShape { path, name, expected, actual });
        }
        let actual = format!("{:?}", view.dtype());
        let mistyped = Error::TensorType { path, name, expected: "BF16, F16 or F32, or packed U8", actual };
        let values = super::floats::floats(view).ok_or(mistyped)?;
        let dtype = if view.dtype() == Dtype::BF16 { Dtype::BF16 } else { Dtype::F32 };
        Ok(Numbers { dtype, values, was_packed: false })
    }
}

impl Numbers {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self.dtype {
            Dtype::BF16 => self.values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
            _ => self.values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }
}

/// A packed matrix, of which every part is there and fits the others.
pub(super) struct Matrix {
    elements: usize,
    packed: Bytes,
    scales: BlockScales,
    levels: Vec<f32>,
    precision: Precision,
}

/// The scales of a matrix's blocks.
enum BlockScales {
    Plain(Vec<f32>),
    Nested(Nested),
}

/// Scales that are packed themselves.
struct Nested {
    codes: Bytes,
    absmax: Vec<f32>,
    map: Vec<f32>,
    offset: f32,
}

impl Nested {
    fn scales(&self) -> Scales<'_> {
        Scales {
            codes: &self.codes,
            nested_absmax: &self.absmax,
            nested_map: &self.map,
            nested_offset: self.offset,
        }
    }
}

impl Matrix {
    pub(super) fn new(
        file: &File<'_>,
        [d_out, d_in]: [usize; 2],
        state: &State,
        mut parts: Nf4Parts,
    ) -> Result<Self> {
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
        let precision = match state.dtype.as_str() {
            "bfloat16" => Precision::Bf16,
            "float16" => Precision::F16,
            "float32" => Precision::F32,
            other => return Err(file.bad(format!("its dtype is {other:?}"))),
        };
        // What is large is moved, not copied.
        let bytes = |parts: &mut Nf4Parts, part: &str| match parts.remove(part) {
            Some((Dtype::U8, bytes)) => Ok(bytes),
            _ => Err(file.bad(format!("`.weight{part}` is not U8"))),
        };
        let numbers = |parts: &Nf4Parts, part: &str| match parts.get(part) {
            Some((Dtype::F32, bytes)) => Ok(bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect::<Vec<_>>()),
            _ => Err(file.bad(format!("`.weight{part}` is not F32"))),
        };
        if state.nested_offset.is_none() && parts.keys().any(|part| part.starts_with(".nested")) {
            return Err(file.bad("it has nested scales and no nested_offset"));
        }
        let (blocks, scales) = if let Some(offset) = state.nested_offset {
            if state.nested_blocksize != Some(nf4::NESTED_BLOCK)
                || state.nested_dtype.as_deref() != Some("float32")
            {
                return Err(file.bad("its scales are not float32 in blocks of 256"));
            }
            let (absmax, map) = (numbers(&parts, PARTS[2])?, numbers(&parts, PARTS[3])?);
            let nested = Nested { codes: bytes(&mut parts, PARTS[1])?, absmax, map, offset };
            nested.scales().bound().map_err(|error| file.bad(error.to_string()))?;
            (nested.codes.len(), BlockScales::Nested(nested))
        } else {
            let scales = numbers(&parts, PARTS[1])?;
            (scales.len(), BlockScales::Plain(scales))
        };
        let packed = bytes(&mut parts, PARTS[0])?;
        if packed.len() != elements.div_ceil(2) {
            let reason = format!("it has {} bytes; its shape says {}", packed.len(), elements.div_ceil(2));
            return Err(file.bad(reason));
        }
        let levels = numbers(&parts, PARTS[4])?;
        for (part, expected, actual) in
            [("quant_map", 16, levels.len()), ("absmax", elements.div_ceil(nf4::BLOCK), blocks)]
        {
            if expected != actual {
                return Err(file.bad(descant_quant::Error::Length { part, expected, actual }.to_string()));
            }
        }
        Ok(Self { elements, packed, scales, levels, precision })
    }

    /// What bitsandbytes computes with.
    pub(super) fn numbers(&self, file: &File<'_>) -> Result<Numbers> {
        let bad = |error: descant_quant::Error| file.bad(error.to_string());
        let scales = match &self.scales {
            BlockScales::Plain(scales) => Cow::Borrowed(scales),
            BlockScales::Nested(nested) => Cow::Owned(nested.scales().decode().map_err(bad)?),
        };
        let mut values = vec![0.0; self.elements];
        nf4::decode(&self.packed, &scales, &self.levels, self.precision, &mut values).map_err(bad)?;
        let dtype = if self.precision == Precision::Bf16 { Dtype::BF16 } else { Dtype::F32 };
        Ok(Numbers { dtype, values, was_packed: true })
    }

    /// As kernels read it, or why they do not.
    pub(super) fn packed(&self, d_in: usize) -> std::result::Result<nf4::Packed<'_>, String> {
        if !d_in.is_multiple_of(nf4::BLOCK) {
            return Err(format!("its rows of {d_in} end within a block of {}", nf4::BLOCK));
        }
        if self.precision != Precision::Bf16 {
            return Err("its numbers were not bfloat16".to_owned());
        }
        let BlockScales::Nested(nested) = &self.scales else {
            return Err("its scales are not packed themselves".to_owned());
        };
        // The largest number of each block, rounded as all of them are; of all blocks first, and of each if need be.
        let largest = self.levels.iter().fold(0.0f32, |largest, level| largest.max(level.abs()));
        let is_finite = |absmax: f32| bf16::from_f32(absmax * largest).is_finite();
        let is_bounded = nested.scales().bound().is_ok_and(is_finite);
        if !is_bounded && !nested.scales().decode().is_ok_and(|scales| scales.into_iter().all(is_finite)) {
            return Err("some of its numbers are not finite".to_owned());
        }
        Ok(nf4::Packed {
            packed: &self.packed,
            codes: &nested.codes,
            nested_absmax: &nested.absmax,
            nested_offset: nested.offset,
            levels: &self.levels,
            map: &nested.map,
        })
    }
}
