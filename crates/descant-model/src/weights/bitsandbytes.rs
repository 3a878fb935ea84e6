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
//! some layers alone; those have a plain `X.weight`. What comes in here goes out under the names of the unpacked layout:
//! on a card packed, where the kernels read it so, and else with the numbers that bitsandbytes computes with, in the
//! memory of BF16. What could have stayed packed and does not is written down.

use std::collections::BTreeMap;
use std::path::Path;

use descant_quant::nf4::{self, Precision, Scales};
use half::bf16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;

use crate::config::Config;
use crate::error::{Error, Result};
use descant_kernels::SiteKind;

use crate::names::{LinearLayer, Part};
use crate::site::Site;

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
    let matrix = Matrix::new(&file, [d_out, d_in], &state, parts)?;
    let numbers = matrix.numbers(&file)?;
    Ok((numbers.values, numbers.dtype == Dtype::BF16))
}

/// A tensor of the unpacked layout.
pub(super) struct Unpacked {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Vec<u8>,
    /// Whether some of it was packed.
    pub(super) was_packed: bool,
}

/// Matrices that stay packed.
pub(super) struct Kept {
    /// As that of the unpacked tensor that it stands for.
    pub(super) name: String,
    pub(super) stack: nf4::Stack,
    /// Matrices, output features, input features.
    pub(super) shape: [usize; 3],
}

/// A tensor that is complete.
pub(super) enum Made {
    Unpacked(Unpacked),
    Kept(Kept),
}

/// What became of a tensor of the file.
pub(super) enum Taken {
    /// It is none of a linear layer's.
    Other,
    /// With it these are complete; none where it waits for others.
    Made(Vec<Made>),
}

/// Turns the tensors of a checkpoint, one after the other, into those of the unpacked layout.
pub(super) struct Unpacker {
    /// Whether what kernels read packed stays so.
    keep: bool,
    layers: BTreeMap<String, Layer>,
    /// Matrices that stay packed together or not at all, and of which some have not come yet.
    groups: BTreeMap<Group, BTreeMap<usize, (Layer, Piece)>>,
    /// What was NF4 and is not any more, and why.
    notes: Vec<(Part, String)>,
    /// Parts of packed matrices of which some have not come yet.
    open: BTreeMap<String, Nf4Parts>,
    /// Experts of which some have not come yet, by the name of what they become.
    stacks: BTreeMap<String, Stack>,
}

/// Query, key and value.
const ATTENTION_INPUTS: usize = 3;

/// Matrices that products read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    /// The experts' of a site.
    Experts(Site),
    /// Query, key and value of a layer.
    AttentionInput(usize),
    /// The one of a site.
    Alone(Site),
}

impl Group {
    /// That of a site, and how many matrices it has; none where no kernel reads it packed.
    fn of(site: Site, experts: usize) -> Option<(Self, usize)> {
        match site.kind {
            SiteKind::GateUp | SiteKind::Down => Some((Self::Experts(site), experts)),
            SiteKind::Query | SiteKind::Key | SiteKind::Value => {
                Some((Self::AttentionInput(site.layer), ATTENTION_INPUTS))
            }
            SiteKind::Output => Some((Self::Alone(site), 1)),
            SiteKind::Router => None,
        }
    }
}

/// A matrix `[out, in]` on its way.
enum Piece {
    Plain(Numbers),
    Packed(Matrix),
}

/// A linear layer, and what it becomes.
#[derive(Clone)]
struct Layer {
    part: Part,
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
    was_packed: bool,
    experts: BTreeMap<usize, Vec<u8>>,
}

/// Numbers in the type they are computed with: two bytes each as BF16, else four.
struct Numbers {
    dtype: Dtype,
    values: Vec<f32>,
    was_packed: bool,
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
    /// For the tensors of this configuration; `keep` for a card, whose kernels read packed ones.
    pub(super) fn new(config: &Config, keep: bool) -> Self {
        let mut layers = BTreeMap::new();
        for linear in LinearLayer::all(config) {
            let layer = Layer {
                part: linear.weight,
                weight: linear.weight.name(),
                // lm_head has none, and one that came would have no place.
                bias: linear.bias.map_or_else(|| "lm_head.bias".to_owned(), Part::name),
                d_out: linear.d_out,
                d_in: linear.d_in,
                expert: linear.expert.map(|expert| (expert, config.num_local_experts)),
            };
            layers.extend(linear.names().into_iter().map(|name| (name, layer.clone())));
        }
        let (open, stacks, groups) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { keep, layers, open, stacks, groups, notes: Vec::new() }
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
            return self.place_matrix(&file, &layer, Piece::Plain(numbers));
        }
        let parts = self.open.entry(base.to_owned()).or_default();
        parts.insert(part, (view.dtype(), view.data().to_vec()));
        // Which parts there are is known once the state is there.
        let Some(state) = parts.get(STATE) else { return Ok(Taken::Made(Vec::new())) };
        let state: State = serde_json::from_slice(&state.1).map_err(|error| file.bad(error.to_string()))?;
        let wanted = |part: &&str| state.nested_offset.is_some() || !part.starts_with(".nested");
        if !PARTS.iter().copied().filter(wanted).all(|part| parts.contains_key(part)) {
            return Ok(Taken::Made(Vec::new()));
        }
        let parts = self.open.remove(base).unwrap_or_default();
        let matrix = Matrix::new(&file, [layer.d_out, layer.d_in], &state, parts)?;
        self.place_matrix(&file, &layer, Piece::Packed(matrix))
    }

    /// Every matrix that was begun must have ended. Gives what was NF4 and was unpacked where a packed one could have
    /// been kept, and why.
    pub(super) fn finish(self, dir: &Path) -> Result<Vec<(Part, String)>> {
        let missing = |name: String| Error::TensorMissing { dir: dir.to_owned(), name };
        if let Some((base, parts)) = self.open.into_iter().next() {
            let part = PARTS.into_iter().find(|part| !parts.contains_key(part)).unwrap_or_default();
            return Err(missing(format!("{base}.weight{part}")));
        }
        if let Some((group, members)) = self.groups.into_iter().next() {
            let is_missing = |layer: &&Layer| {
                layer.group().is_some_and(|(of, _)| of == group) && !members.contains_key(&layer.place())
            };
            // The first of the layer's names is the usual one.
            let mut layers: Vec<_> = self.layers.iter().filter(|(_, layer)| is_missing(layer)).collect();
            layers.sort_by_key(|(_, layer)| layer.place());
            let base = layers.first().map(|(base, _)| base.as_str()).unwrap_or_default();
            return Err(missing(format!("{base}.weight")));
        }
        match self.stacks.into_iter().next() {
            None => Ok(self.notes),
            Some((name, stack)) => {
                let mut experts = 0..=stack.experts.len();
                let expert = experts.find(|expert| !stack.experts.contains_key(expert)).unwrap_or(0);
                let (base, part) =
                    name.strip_suffix("_bias").map_or((name.as_str(), "weight"), |base| (base, "bias"));
                Err(missing(format!("{base}s.{expert}.{part}")))
            }
        }
    }

    /// A matrix to its place.
    fn place_matrix(&mut self, file: &File<'_>, layer: &Layer, piece: Piece) -> Result<Taken> {
        let group = layer.group().filter(|_| self.keep);
        let Some((group, n)) = group else {
            if let (true, Piece::Packed(_)) = (self.keep, &piece) {
                self.notes.push((layer.part, "no product reads it packed".to_owned()));
            }
            return self.place_numbers(file, layer, piece.numbers(file)?);
        };
        let members = self.groups.entry(group).or_default();
        members.insert(layer.place(), (layer.clone(), piece));
        if members.len() < n {
            return Ok(Taken::Made(Vec::new()));
        }
        let members: Vec<(Layer, Piece)> =
            self.groups.remove(&group).unwrap_or_default().into_values().collect();
        match keep(&members) {
            Ok(kept) => return Ok(Taken::Made(kept.into_iter().map(Made::Kept).collect())),
            Err(reason) => {
                let packed = members.iter().filter(|(_, piece)| matches!(piece, Piece::Packed(_)));
                let mut parts: Vec<Part> = packed.map(|(layer, _)| layer.part).collect();
                parts.dedup();
                self.notes.extend(parts.into_iter().map(|part| (part, reason.clone())));
            }
        }
        let mut all = Vec::new();
        for (layer, piece) in members {
            match self.place_numbers(file, &layer, piece.numbers(file)?)? {
                Taken::Made(made) => all.extend(made),
                Taken::Other => {}
            }
        }
        Ok(Taken::Made(all))
    }

    /// The numbers of a matrix `[out, in]` to their place; experts lie the other way round in the unpacked layout.
    fn place_numbers(&mut self, file: &File<'_>, layer: &Layer, numbers: Numbers) -> Result<Taken> {
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
        let whole = |shape, dtype, bytes, was_packed| {
            let name = name.to_owned();
            Taken::Made(vec![Made::Unpacked(Unpacked { name, dtype, shape, bytes, was_packed })])
        };
        let Some((expert, n)) = layer.expert else {
            return Ok(whole(shape, numbers.dtype, bytes, numbers.was_packed));
        };
        let new = || Stack { dtype: numbers.dtype, was_packed: false, experts: BTreeMap::new() };
        let stack = self.stacks.entry(name.to_owned()).or_insert_with(new);
        if stack.dtype != numbers.dtype {
            return Err(file.bad("its numbers have another type than those of the experts before it"));
        }
        stack.was_packed |= numbers.was_packed;
        stack.experts.insert(expert, bytes);
        if stack.experts.len() < n {
            return Ok(Taken::Made(Vec::new()));
        }
        let stack = self.stacks.remove(name).expect("it was there a moment ago");
        let mut bytes = Vec::with_capacity(stack.experts.values().map(Vec::len).sum());
        // Each is given back when it has been copied.
        stack.experts.into_values().for_each(|expert| bytes.extend(expert));
        Ok(whole([vec![n], shape].concat(), stack.dtype, bytes, stack.was_packed))
    }
}

impl Layer {
    /// Which matrices must have its form, and how many there are.
    fn group(&self) -> Option<(Group, usize)> {
        let experts = self.expert.map_or(1, |(_, n)| n);
        self.part.site().and_then(|site| Group::of(site, experts))
    }

    /// Its place among them.
    fn place(&self) -> usize {
        match (self.expert, self.part.site()) {
            (Some((expert, _)), _) => expert,
            (None, site) => site.map_or(0, |site| site.kind as usize),
        }
    }
}

impl Piece {
    fn numbers(self, file: &File<'_>) -> Result<Numbers> {
        match self {
            Self::Plain(numbers) => Ok(numbers),
            Self::Packed(matrix) => matrix.numbers(file),
        }
    }
}

/// The members of a group, packed as kernels read them: all experts as one, others one by one. Else why not.
fn keep(members: &[(Layer, Piece)]) -> std::result::Result<Vec<Kept>, String> {
    let mut matrices = Vec::with_capacity(members.len());
    for (layer, piece) in members {
        let Piece::Packed(matrix) = piece else {
            return Err("others that are read with it are not packed".to_owned());
        };
        matrices.push((layer, matrix.packed(layer.d_in)?));
    }
    let kept = |layer: &Layer, matrices: &[nf4::Packed<'_>]| {
        let stack = nf4::Stack::new(matrices).map_err(|error| error.to_string())?;
        let (name, shape) = (layer.weight.clone(), [matrices.len(), layer.d_out, layer.d_in]);
        Ok(Kept { name, stack, shape })
    };
    match matrices.first() {
        Some((layer, _)) if layer.expert.is_some() => {
            let layer = *layer;
            let matrices: Vec<nf4::Packed<'_>> = matrices.into_iter().map(|(_, matrix)| matrix).collect();
            Ok(vec![kept(layer, &matrices)?])
        }
        _ => matrices.iter().map(|(layer, matrix)| kept(layer, std::slice::from_ref(matrix))).collect(),
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
        Ok(Numbers { dtype, values, was_packed: false })
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

/// A packed matrix, of which every part is there and fits the others.
struct Matrix {
    elements: usize,
    packed: Vec<u8>,
    /// The scale of each block.
    absmax: Vec<f32>,
    levels: Vec<f32>,
    nested: Option<Nested>,
    precision: Precision,
}

/// How the scales are packed themselves.
struct Nested {
    codes: Vec<u8>,
    absmax: Vec<f32>,
    map: Vec<f32>,
    offset: f32,
}

impl Matrix {
    fn new(file: &File<'_>, [d_out, d_in]: [usize; 2], state: &State, mut parts: Nf4Parts) -> Result<Self> {
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
        let (absmax, nested) = if let Some(offset) = state.nested_offset {
            if state.nested_blocksize != Some(nf4::NESTED_BLOCK)
                || state.nested_dtype.as_deref() != Some("float32")
            {
                return Err(file.bad("its scales are not float32 in blocks of 256"));
            }
            let (absmax, map) = (numbers(&parts, PARTS[2])?, numbers(&parts, PARTS[3])?);
            let codes = bytes(&mut parts, PARTS[1])?;
            let scales =
                Scales { codes: &codes, nested_absmax: &absmax, nested_map: &map, nested_offset: offset };
            let decoded = scales.decode().map_err(|error| file.bad(error.to_string()))?;
            (decoded, Some(Nested { codes, absmax, map, offset }))
        } else {
            (numbers(&parts, PARTS[1])?, None)
        };
        let packed = bytes(&mut parts, PARTS[0])?;
        if packed.len() != elements.div_ceil(2) {
            let reason = format!("it has {} bytes; its shape says {}", packed.len(), elements.div_ceil(2));
            return Err(file.bad(reason));
        }
        let levels = numbers(&parts, PARTS[4])?;
        for (part, expected, actual) in
            [("quant_map", 16, levels.len()), ("absmax", elements.div_ceil(nf4::BLOCK), absmax.len())]
        {
            if expected != actual {
                return Err(file.bad(descant_quant::Error::Length { part, expected, actual }.to_string()));
            }
        }
        Ok(Self { elements, packed, absmax, levels, nested, precision })
    }

    /// What bitsandbytes computes with.
    fn numbers(&self, file: &File<'_>) -> Result<Numbers> {
        let mut values = vec![0.0; self.elements];
        nf4::decode(&self.packed, &self.absmax, &self.levels, self.precision, &mut values)
            .map_err(|error| file.bad(error.to_string()))?;
        let dtype = if self.precision == Precision::Bf16 { Dtype::BF16 } else { Dtype::F32 };
        Ok(Numbers { dtype, values, was_packed: true })
    }

    /// As kernels read it, or why they do not.
    fn packed(&self, d_in: usize) -> std::result::Result<nf4::Packed<'_>, String> {
        if !d_in.is_multiple_of(nf4::BLOCK) {
            return Err(format!("its rows of {d_in} end within a block of {}", nf4::BLOCK));
        }
        if self.precision != Precision::Bf16 {
            return Err("its numbers were not bfloat16".to_owned());
        }
        let nested = self.nested.as_ref().ok_or("its scales are not packed themselves")?;
        // The largest number of each block, rounded as all of them are.
        let largest = self.levels.iter().fold(0.0f32, |largest, level| largest.max(level.abs()));
        if !self.absmax.iter().all(|absmax| bf16::from_f32(absmax * largest).is_finite()) {
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

#[cfg(test)]
mod tests;
