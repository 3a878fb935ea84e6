//! Which tensors an export has, in order, with their types, shapes and where their numbers come from.
//!
//! Everything about a file's layout follows from this list before a number is read: headers, shards, sizes, the disk.

use descant_model::{Config, LayerPart, Part, Piece, Site, SiteKind, Stored};
use descant_quant::{Packing, mxfp4};
use safetensors::Dtype;

use crate::form::Select;

/// Type of a tensor's elements in the export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    /// A float, or bytes as they are.
    Plain(Dtype),
    /// GGML's blocks of 32 in 17 bytes.
    GgmlMxfp4,
}

impl Type {
    /// Bytes of `n` elements.
    pub(crate) fn bytes(self, n: u64) -> u64 {
        match self {
            Self::Plain(dtype) => n * dtype.bitsize() as u64 / 8,
            Self::GgmlMxfp4 => n / mxfp4::BLOCK as u64 * mxfp4::GGML_BYTES as u64,
        }
    }
}

/// How the weights of experts are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// `[in, out]`, BF16.
    Transposed,
    /// `[out, in]`, BF16.
    Plain,
    /// MXFP4 without scales, which are another tensor.
    Blocks,
    /// GGML's MXFP4.
    Ggml,
}

/// Where a tensor's numbers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A part that is not an expert's weight.
    Float { part: Part, select: Select },
    /// The weights of a layer's experts.
    Experts { site: Site, select: Select, rows: Rows },
    /// The scales that packing the experts left.
    Scales { site: Site },
}

/// A tensor of the export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutTensor {
    pub(crate) name: String,
    pub(crate) kind: Type,
    /// Outermost axis first.
    pub(crate) shape: Vec<usize>,
    pub(crate) source: Source,
}

impl OutTensor {
    /// Bytes of its data.
    pub(crate) fn bytes(&self) -> u64 {
        self.kind.bytes(self.shape.iter().map(|&n| n as u64).product())
    }
}

/// Every tensor in transformers' layout, BF16.
pub(crate) fn unpacked(config: &Config) -> Vec<OutTensor> {
    let tensor = |part: Part| {
        let source = match expert_site(part) {
            Some(site) => Source::Experts { site, select: Select::All, rows: Rows::Transposed },
            None => Source::Float { part, select: Select::All },
        };
        let kind = Type::Plain(Dtype::BF16);
        OutTensor { name: part.name(), kind, shape: part.shape(config), source }
    };
    sorted(Part::all(config).map(tensor).collect())
}

/// Every tensor in the published layout; `dtype` is the type in which the base has a part.
pub(crate) fn published(config: &Config, dtype: impl Fn(Part) -> Option<Dtype>) -> Vec<OutTensor> {
    let tensor = |stored: Stored| {
        let Stored { part, piece } = stored;
        let (source, kind) = match (piece, expert_site(part)) {
            (Piece::Blocks, Some(site)) => {
                (Source::Experts { site, select: Select::All, rows: Rows::Blocks }, Dtype::U8)
            }
            (Piece::Scales, Some(site)) => (Source::Scales { site }, Dtype::U8),
            _ => (Source::Float { part, select: Select::All }, dtype(part).unwrap_or(Dtype::BF16)),
        };
        OutTensor { name: stored.name(), kind: Type::Plain(kind), shape: stored.shape(config), source }
    };
    sorted(Stored::all(config, Packing::Mxfp4).map(tensor).collect())
}

/// Every tensor for llama.cpp; experts packed or BF16.
pub(crate) fn gguf(config: &Config, packed: bool) -> Vec<OutTensor> {
    let mut all = Vec::new();
    for part in Part::all(config) {
        for (name, select) in crate::gguf::names(part) {
            let (source, kind, shape) = if let Some(site) = expert_site(part) {
                let dims = config.site_dims(site.kind);
                let (rows, kind) = if packed {
                    (Rows::Ggml, Type::GgmlMxfp4)
                } else {
                    (Rows::Plain, Type::Plain(Dtype::BF16))
                };
                let shape = vec![dims.n_matrices, select.of(dims.d_out), dims.d_in];
                (Source::Experts { site, select, rows }, kind, shape)
            } else {
                let mut shape = part.shape(config);
                let last = shape.len() - 1;
                shape[last] = select.of(shape[last]);
                (Source::Float { part, select }, Type::Plain(float_in_gguf(part)), shape)
            };
            all.push(OutTensor { name, kind, shape, source });
        }
    }
    all
}

/// Matrices that are multiplied are BF16; what is added, normalized or routes is F32, as llama.cpp wants it.
fn float_in_gguf(part: Part) -> Dtype {
    match part {
        Part::Embedding | Part::Head => Dtype::BF16,
        Part::Layer(_, LayerPart::Weight(kind)) if kind != SiteKind::Router => Dtype::BF16,
        _ => Dtype::F32,
    }
}

/// The site of an expert's weight.
pub(crate) fn expert_site(part: Part) -> Option<Site> {
    part.site().filter(|site| site.kind.is_expert())
}

/// By name, but layers by number, so that a shard holds whole layers; blocks come right before their scales.
fn sorted(mut tensors: Vec<OutTensor>) -> Vec<OutTensor> {
    let layer = |tensor: &OutTensor| match tensor.source {
        Source::Float { part: Part::Layer(n, _), .. } => n + 1,
        Source::Experts { site, .. } | Source::Scales { site } => site.layer + 1,
        Source::Float { part: Part::Embedding, .. } => 0,
        Source::Float { .. } => usize::MAX,
    };
    tensors.sort_by(|a, b| (layer(a), &a.name).cmp(&(layer(b), &b.name)));
    tensors
}
