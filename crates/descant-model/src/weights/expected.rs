//! What a configuration says of the tensors of a checkpoint: which there are, and of what type they become on a device.

use std::collections::BTreeMap;

use burn::tensor::DType;

use crate::config::Config;
use crate::layouts::{Piece, Stored};
use crate::names::{LayerPart, Part};
use descant_kernels::SiteKind;
use descant_quant::Packing;

/// Bytes that the weights of this configuration take on a card, or on the CPU.
pub fn weight_bytes(config: &Config, on_card: bool) -> u64 {
    let bytes = |stored: Stored| {
        let size = match stored.piece {
            Piece::Whole => dtype(stored.part, on_card).size(),
            Piece::Blocks | Piece::Scales => 1,
        };
        // A hostile configuration may multiply to more than there is.
        let shape = stored.shape(config);
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

/// Every tensor that belongs to this configuration, by name.
pub(super) fn expected(config: &Config) -> BTreeMap<String, Stored> {
    Stored::all(config, config.packing).map(|stored| (stored.name(), stored)).collect()
}

/// What the floats of a part become. On a card, bf16 is what products read, or add to their bf16 results; what is small
/// and read by what computes in f32 stays so.
pub(super) fn dtype(part: Part, on_card: bool) -> DType {
    let is_fine = matches!(
        part,
        Part::Norm
            | Part::Layer(
                _,
                LayerPart::InputNorm
                    | LayerPart::Sinks
                    | LayerPart::PostNorm
                    | LayerPart::Bias(SiteKind::Router),
            )
    );
    if on_card && !is_fine { DType::BF16 } else { DType::F32 }
}
