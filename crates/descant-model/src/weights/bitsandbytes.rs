//! Checkpoints of bitsandbytes: NF4 under the names of its linear layers, every expert a layer of its own.
//!
//! ```text
//! X.weight and what follows it in names     a packed matrix, see `nf4_matrix.rs`, or a plain one
//! X.bias                                    as ever
//! ```
//!
//! `X` is `self_attn.q_proj`, `mlp.experts.gate_up_projs.7`, `mlp.router.linear` and so on. Dynamic checkpoints leave
//! some layers alone; those have a plain `X.weight`. What comes in here goes out under the names of the unpacked
//! layout: on a card packed, where the kernels read it so, and else with the numbers that bitsandbytes computes with,
//! in the memory of BF16. What could have stayed packed and does not is written down.

use std::collections::BTreeMap;
use std::path::Path;

use descant_quant::{nf4, transposed};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::config::Config;
use crate::error::{Error, Result};
use descant_kernels::SiteKind;

use super::nf4_matrix::{File, Matrix, Nf4Parts, Numbers, PARTS, STATE, State};
use crate::layouts::LinearLayer;
use crate::names::Part;
use crate::shards::Bytes;
use crate::site::Site;

/// A tensor of the unpacked layout.
pub(super) struct Unpacked {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Vec<u8>,
    /// Whether some of it was packed.
    pub(super) was_packed: bool,
}

impl Unpacked {
    /// As if it had been in a file.
    pub(super) fn view(&self) -> TensorView<'_> {
        TensorView::new(self.dtype, self.shape.clone(), &self.bytes)
            .expect("as many bytes were made as the shape says")
    }
}

/// Matrices that stay packed, and go to their place from the files, which are read then.
pub(super) struct Kept {
    /// Which weight they are.
    pub(super) part: Part,
    matrices: Vec<Matrix>,
    /// Matrices, output features, input features.
    pub(super) shape: [usize; 3],
}

impl Kept {
    fn new(layer: &Layer, matrices: Vec<Matrix>) -> Self {
        let shape = [matrices.len(), layer.d_out, layer.d_in];
        Self { part: layer.part, matrices, shape }
    }

    /// What kernels read.
    pub(super) fn stacked(&self) -> nf4::Stacked<'_> {
        stacked(self.matrices.iter(), self.shape[2]).expect("it was looked at before they were kept")
    }
}

fn stacked<'a>(
    matrices: impl Iterator<Item = &'a Matrix>,
    d_in: usize,
) -> std::result::Result<nf4::Stacked<'a>, String> {
    let matrices: std::result::Result<Vec<_>, String> = matrices.map(|matrix| matrix.packed(d_in)).collect();
    nf4::Stacked::new(matrices?).map_err(|error| error.to_string())
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
        let inputs = SiteKind::ATTENTION_INPUTS;
        let group = match site.kind {
            kind if kind.is_expert() => (Self::Experts(site), experts),
            kind if inputs.contains(&kind) => (Self::AttentionInput(site.layer), inputs.len()),
            _ => (Self::Alone(site), 1),
        };
        site.kind.may_be_packed().then_some(group)
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

    /// Takes a tensor of the file; `bytes` are those of the view.
    pub(super) fn take(
        &mut self,
        path: &Path,
        name: &str,
        view: &TensorView<'_>,
        bytes: Bytes,
    ) -> Result<Taken> {
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
        parts.insert(part, (view.dtype(), bytes));
        // Which parts there are is known once the state is there.
        let Some(state) = parts.get(STATE) else { return Ok(Taken::Made(Vec::new())) };
        let state = State::read(&file, &state.1)?;
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
        match why_not_kept(&members) {
            None => return Ok(Taken::Made(keep(members).into_iter().map(Made::Kept).collect())),
            Some(reason) => {
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

/// Why the members of a group cannot stay packed, if they cannot.
fn why_not_kept(members: &[(Layer, Piece)]) -> Option<String> {
    let mut matrices = Vec::with_capacity(members.len());
    for (layer, piece) in members {
        let Piece::Packed(matrix) = piece else {
            return Some("others that are read with it are not packed".to_owned());
        };
        matrices.push((layer, matrix));
    }
    let (layer, _) = *matrices.first()?;
    if layer.expert.is_some() {
        return stacked(matrices.iter().map(|(_, matrix)| *matrix), layer.d_in).err();
    }
    matrices.into_iter().find_map(|(layer, matrix)| stacked(std::iter::once(matrix), layer.d_in).err())
}

/// The members of a group that can stay packed: all experts as one, others one by one.
fn keep(members: Vec<(Layer, Piece)>) -> Vec<Kept> {
    let packed = members.into_iter().filter_map(|(layer, piece)| match piece {
        Piece::Packed(matrix) => Some((layer, matrix)),
        Piece::Plain(_) => None,
    });
    let packed: Vec<(Layer, Matrix)> = packed.collect();
    match packed.first() {
        Some((layer, _)) if layer.expert.is_some() => {
            let layer = layer.clone();
            vec![Kept::new(&layer, packed.into_iter().map(|(_, matrix)| matrix).collect())]
        }
        _ => packed.into_iter().map(|(layer, matrix)| Kept::new(&layer, vec![matrix])).collect(),
    }
}

#[cfg(test)]
mod tests;
