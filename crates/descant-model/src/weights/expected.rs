//! What a configuration says of the tensors of a checkpoint: which there are, and of what type they become on a device.

use std::collections::BTreeMap;

use burn::tensor::DType;

use crate::config::Config;
use crate::names::{LayerPart, Part, Piece, Stored};
use descant_kernels::SiteKind;
use descant_quant::Packing;

/// Bytes that the weights of this configuration take on a card, or on the CPU.
pub fn weight_bytes(config: &Config, on_card: bool) -> u64 {
    let bytes = |stored: Stored| {
        let (shape, size) = match kind(stored, config) {
            Kind::Float { shape, role } => (shape, role.dtype(on_card).size()),
            Kind::Bytes { shape, .. } => (shape, 1),
        };
        // A hostile configuration may multiply to more than there is.
        let product = |first| shape.iter().fold(first, |bytes: u64, n| bytes.saturating_mul(*n as u64));
        match stored.part.site() {
            Some(site) if on_card && config.packing == Packing::Nf4 && config.keeps_packed(site) => {
                config.packing.bytes(product(1), size as u64)
            }
            _ => product(size as u64),
        }
    };
    Stored::all(config, config.packing).map(bytes).fold(0, u64::saturating_add)
}

/// What the configuration says of a tensor.
pub(super) enum Kind {
    Float {
        shape: Vec<usize>,
        role: Role,
    },
    /// Packed bytes; `scales` are checked for NaN.
    Bytes {
        shape: Vec<usize>,
        scales: bool,
    },
}

/// What a float tensor is for, which decides its type on a GPU.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Read by products, or added to their bf16 results.
    Product,
    /// As that, and on a GPU one matrix with its two neighbours.
    Joined,
    /// Small, and read by what computes in f32.
    Fine,
}

impl Role {
    pub(super) fn dtype(self, on_card: bool) -> DType {
        match self {
            Self::Product | Self::Joined if on_card => DType::BF16,
            _ => DType::F32,
        }
    }
}

/// Every tensor that belongs to this configuration.
pub(super) fn expected(config: &Config) -> BTreeMap<String, Kind> {
    Stored::all(config, config.packing).map(|stored| (stored.name(), kind(stored, config))).collect()
}

fn kind(stored: Stored, config: &Config) -> Kind {
    let shape = stored.shape(config);
    match stored.piece {
        Piece::Whole => Kind::Float { shape, role: role(stored.part) },
        Piece::Blocks => Kind::Bytes { shape, scales: false },
        Piece::Scales => Kind::Bytes { shape, scales: true },
    }
}

/// What a part is for.
fn role(part: Part) -> Role {
    match part {
        Part::Layer(_, LayerPart::Weight(SiteKind::Query | SiteKind::Key | SiteKind::Value)) => Role::Joined,
        Part::Norm
        | Part::Layer(
            _,
            LayerPart::InputNorm | LayerPart::Sinks | LayerPart::PostNorm | LayerPart::Bias(SiteKind::Router),
        ) => Role::Fine,
        Part::Embedding | Part::Head | Part::Layer(_, LayerPart::Weight(_) | LayerPart::Bias(_)) => {
            Role::Product
        }
    }
}
