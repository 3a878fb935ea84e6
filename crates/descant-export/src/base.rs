//! The base model, opened for pieces: any layout in, floats or the packed bytes out.
//!
//! Every tensor is accounted for when it is opened, by name, shape and type, as when the model is loaded; numbers are
//! looked at when they are read. Nothing is kept but where things lie.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use descant_files::Ranges;
use descant_model::{Config, Error as ModelError, LinearLayer, Part, Piece, Site, Stored, TensorPlace};
use descant_quant::{Packing, mxfp4, transposed};
use half::{bf16, f16};
use safetensors::Dtype;

use crate::error::{Error, Result};

/// An opened base.
pub(crate) struct Base {
    pub(crate) dir: PathBuf,
    pub(crate) config: Config,
    pub(crate) packing: Packing,
    places: BTreeMap<String, TensorPlace>,
    files: BTreeMap<PathBuf, Ranges>,
    /// Modules of bitsandbytes' layout by what they hold.
    modules: BTreeMap<(Part, Option<usize>), String>,
}

impl Base {
    /// Opens the model in `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let config = Config::from_dir(dir)?;
        let places = descant_model::tensor_places(dir)?;
        let packing = config.packing;
        let mut files = BTreeMap::new();
        for place in places.values() {
            if !files.contains_key(&place.path) {
                files.insert(place.path.clone(), Ranges::open(&place.path)?);
            }
        }
        let mut base = Self { dir: dir.to_owned(), config, packing, places, files, modules: BTreeMap::new() };
        match packing {
            Packing::Nf4 => base.account_nf4()?,
            _ => base.account()?,
        }
        Ok(base)
    }

    /// Whether `part` is stored under its own name: experts of NF4 checkpoints, and layers they pack, are not.
    pub(crate) fn is_plain(&self, part: Part) -> bool {
        self.places.get(&part.name()).is_some_and(|place| is_float(place.dtype))
    }

    /// The type in which a plain part is stored.
    pub(crate) fn dtype(&self, part: Part) -> Option<Dtype> {
        self.places.get(&part.name()).map(|place| place.dtype)
    }

    /// Where a tensor is.
    pub(crate) fn place(&self, name: &str) -> Result<&TensorPlace> {
        self.places.get(name).ok_or_else(|| self.missing(name))
    }

    /// Some of a tensor's bytes.
    pub(crate) fn bytes(&self, place: &TensorPlace, range: Range<u64>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let file = self.files.get(&place.path).expect("every shard was opened");
        file.read(place.start + range.start, &mut bytes)?;
        Ok(bytes)
    }

    /// Elements of a part that is not an expert's weight, in the order of the unpacked layout; finite.
    pub(crate) fn floats(&self, part: Part, elements: Range<usize>) -> Result<Vec<f32>> {
        if self.is_plain(part) {
            return self.plain(&part.name(), elements);
        }
        if let Some(module) = self.modules.get(&(part, None)) {
            return match part.shape(&self.config)[..] {
                [d_out, d_in] => Ok(self.nf4(module, [d_out, d_in])?[elements].to_vec()),
                // A module of another name, as a wrapped router has.
                _ => self.plain(&format!("{module}.bias"), elements),
            };
        }
        // Biases of experts, one a module.
        let width = *part.shape(&self.config).last().expect("every part has an axis");
        let experts: Vec<_> = (elements.start / width..elements.end.div_ceil(width)).collect();
        let mut values = Vec::with_capacity(experts.len() * width);
        for &expert in &experts {
            let module = self.modules.get(&(part, Some(expert))).ok_or_else(|| self.missing(&part.name()))?;
            values.extend(self.plain(&format!("{module}.bias"), 0..width)?);
        }
        let first = experts.first().map_or(0, |expert| expert * width);
        Ok(values[elements.start - first..elements.end - first].to_vec())
    }

    /// One expert's weight as rows `[out, in]`; finite.
    pub(crate) fn expert(&self, site: Site, expert: usize) -> Result<Vec<f32>> {
        let dims = self.config.site_dims(site.kind);
        let part = Part::weight(site);
        match self.packing {
            Packing::Mxfp4 => {
                let (blocks, scales) = self.packed_expert(site, expert)?;
                let mut rows = vec![0.0; dims.d_out * dims.d_in];
                mxfp4::decode(&blocks, &scales, &mut rows);
                Ok(rows)
            }
            Packing::Plain => {
                let size = dims.d_in * dims.d_out;
                let values = self.plain(&part.name(), expert * size..(expert + 1) * size)?;
                Ok(transposed(&values, dims.d_in, dims.d_out))
            }
            Packing::Nf4 => {
                let module =
                    self.modules.get(&(part, Some(expert))).ok_or_else(|| self.missing(&part.name()))?;
                self.nf4(module, [dims.d_out, dims.d_in])
            }
        }
    }

    /// One expert's blocks and scales; only for [`Packing::Mxfp4`].
    pub(crate) fn packed_expert(&self, site: Site, expert: usize) -> Result<(Vec<u8>, Vec<u8>)> {
        let dims = self.config.site_dims(site.kind);
        let n_blocks = dims.d_out * dims.d_in / mxfp4::BLOCK;
        let piece = |piece, size: usize| {
            let name = Stored { part: Part::weight(site), piece }.name();
            let start = (expert * size) as u64;
            Ok::<_, Error>((self.bytes(self.place(&name)?, start..start + size as u64)?, name))
        };
        let (blocks, _) = piece(Piece::Blocks, n_blocks * mxfp4::BLOCK_BYTES)?;
        let (scales, name) = piece(Piece::Scales, n_blocks)?;
        if let Err(descant_quant::Error::NanScale { index }) = mxfp4::validate_scales(&scales) {
            return Err(self.not_finite(&name, expert * n_blocks + index));
        }
        Ok((blocks, scales))
    }

    /// Every tensor must be expected, and every expected one there.
    fn account(&self) -> Result<()> {
        let mut left: BTreeMap<_, _> = self.places.iter().collect();
        for stored in Stored::all(&self.config, self.packing) {
            let name = stored.name();
            let place = left.remove(&name).ok_or_else(|| self.missing(&name))?;
            let float = stored.piece == Piece::Whole;
            check(&name, place, &stored.shape(&self.config), float)?;
        }
        none_left(left)
    }

    /// As [`account`](Self::account), where linear layers are modules that may be packed.
    fn account_nf4(&mut self) -> Result<()> {
        let mut left: BTreeMap<_, _> = self.places.iter().collect();
        let mut modules = BTreeMap::new();
        for layer in LinearLayer::all(&self.config) {
            let name = layer.names().into_iter().find(|name| left.contains_key(&format!("{name}.weight")));
            let name = name.ok_or_else(|| self.missing(&format!("{}.weight", layer.names()[0])))?;
            let weight = format!("{name}.weight");
            let place = left[&weight];
            if is_float(place.dtype) {
                check(&weight, place, &[layer.d_out, layer.d_in], true)?;
            }
            left.retain(|other, _| !(*other == &weight || other.starts_with(&format!("{weight}."))));
            if let Some(part) = layer.bias {
                let bias = format!("{name}.bias");
                let place = left.remove(&bias).ok_or_else(|| self.missing(&bias))?;
                check(&bias, place, &[layer.d_out], true)?;
                modules.insert((part, layer.expert), name.clone());
            }
            modules.insert((layer.weight, layer.expert), name);
        }
        for part in Part::all(&self.config).filter(|part| !modules.keys().any(|(known, _)| known == part)) {
            let name = part.name();
            let place = left.remove(&name).ok_or_else(|| self.missing(&name))?;
            check(&name, place, &part.shape(&self.config), true)?;
        }
        none_left(left)?;
        self.modules = modules;
        Ok(())
    }

    /// Elements of a tensor of floats, all finite.
    fn plain(&self, name: &str, elements: Range<usize>) -> Result<Vec<f32>> {
        let place = self.place(name)?;
        let size = place.dtype.bitsize() / 8;
        let bytes = self.bytes(place, (elements.start * size) as u64..(elements.end * size) as u64)?;
        let values = floats(&bytes, place.dtype);
        match values.iter().position(|x| !x.is_finite()) {
            Some(at) => Err(self.not_finite(name, elements.start + at)),
            None => Ok(values),
        }
    }

    /// The matrix of a module, packed or not.
    fn nf4(&self, module: &str, [d_out, d_in]: [usize; 2]) -> Result<Vec<f32>> {
        let weight = format!("{module}.weight");
        let place = self.place(&weight)?;
        if is_float(place.dtype) {
            return self.plain(&weight, 0..d_out * d_in);
        }
        let part = |suffix: &str| {
            let Some(place) = self.places.get(&format!("{weight}{suffix}")) else { return Ok(None) };
            let bytes = self.bytes(place, 0..place.length).map_err(as_model)?;
            Ok(Some((place.dtype, bytes)))
        };
        let (values, _) = descant_model::unpack_nf4(&place.path, &weight, [d_out, d_in], part)?;
        match values.iter().position(|x| !x.is_finite()) {
            Some(at) => Err(self.not_finite(&weight, at)),
            None => Ok(values),
        }
    }

    /// The error of a value that is not a number.
    pub(crate) fn not_finite(&self, name: &str, element: usize) -> Error {
        let path = self.places.get(name).map_or(&self.dir, |place| &place.path).display().to_string();
        ModelError::TensorNotFinite { path, name: name.to_owned(), element }.into()
    }

    fn missing(&self, name: &str) -> Error {
        ModelError::TensorMissing { dir: self.dir.clone(), name: name.to_owned() }.into()
    }
}

/// Where one kind of error has to pass as another.
fn as_model(error: Error) -> ModelError {
    match error {
        Error::File(error) => ModelError::File(error),
        Error::Model(error) => error,
        other => ModelError::Config { path: PathBuf::new(), reason: other.to_string() },
    }
}

fn check(name: &str, place: &TensorPlace, shape: &[usize], float: bool) -> Result<()> {
    let path = place.path.display().to_string();
    if place.shape != shape {
        let (expected, actual) = (shape.to_vec(), place.shape.clone());
        return Err(ModelError::TensorShape { path, name: name.to_owned(), expected, actual }.into());
    }
    let (right, expected) =
        if float { (is_float(place.dtype), "BF16, F16 or F32") } else { (place.dtype == Dtype::U8, "U8") };
    if right {
        return Ok(());
    }
    let actual = format!("{:?}", place.dtype);
    Err(ModelError::TensorType { path, name: name.to_owned(), expected, actual }.into())
}

fn none_left(mut left: BTreeMap<&String, &TensorPlace>) -> Result<()> {
    match left.pop_first() {
        None => Ok(()),
        Some((name, place)) => {
            let path = place.path.display().to_string();
            Err(ModelError::TensorExtra { path, name: name.clone() }.into())
        }
    }
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32)
}

/// Bytes of a float type as f32.
pub(crate) fn floats(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        _ => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
    }
}

/// The nearest number of BF16, ties to even; not for NaN.
///
/// `half` looks for that, which keeps its loops from being vectorized; here it is refused beside.
#[inline]
pub(crate) fn bf16_of(x: f32) -> bf16 {
    let bits = x.to_bits();
    bf16::from_bits((bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16) as u16)
}

/// Numbers as bytes; a loop that is compiled to a copy, which collecting bytes one by one is not.
pub(crate) fn to_bytes<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut out = vec![0; N * values.len()];
    for (out, value) in out.as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *out = bytes(*value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_to_bf16_is_halfs() {
        let ends =
            [0.0, -0.0, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE, 1e-45];
        // Every sign, exponent and upper half of the fraction, with lower halves around the tie.
        let all = (0..=u16::MAX).flat_map(|high| {
            [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF].map(|low| f32::from_bits(u32::from(high) << 16 | low))
        });
        for x in ends.into_iter().chain(all).filter(|x| !x.is_nan()) {
            assert_eq!(bf16_of(x).to_bits(), bf16::from_f32(x).to_bits(), "{x:e}");
        }
    }
}
