//! The places in a gpt-oss model that an adapter may change, and which of their weights stay packed.
//!
//! A site is named by layer and kind. Everything that counts parameters, names adapter tensors or asks the
//! overlay for a delta speaks of sites, so that a target that matches nothing can be distinguished from one that
//! does. Names and shapes live elsewhere (`names.rs` for checkpoints, descant-lora for PEFT).

use descant_kernels::SiteKind;
use descant_quant::{Packing, nf4};

use crate::config::Config;

/// One place in the model: a layer and a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// Layer, from 0.
    pub layer: usize,
    /// Kind of weight.
    pub kind: SiteKind,
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "layers.{}.{}", self.layer, self.kind.name())
    }
}

impl Config {
    /// Whether a card's kernels read the weight of this site packed.
    pub fn keeps_packed(&self, site: Site) -> bool {
        let Site { layer, kind } = site;
        match self.packing {
            Packing::Plain => false,
            Packing::Mxfp4 => kind.is_expert(),
            // A block must not go over the end of a row. Query, key and value are read together.
            Packing::Nf4 => {
                let inputs = SiteKind::ATTENTION_INPUTS;
                let beside = if inputs.contains(&kind) { inputs.to_vec() } else { vec![kind] };
                kind.may_be_packed()
                    && self.site_dims(kind).d_in.is_multiple_of(nf4::BLOCK)
                    && !beside.into_iter().any(|kind| self.plain.has(&Site { layer, kind }.path()))
            }
        }
    }

    /// Whether a card's kernels read some of attention's weights packed.
    pub fn has_packed_attention(&self) -> bool {
        let attention = |layer| [SiteKind::Query, SiteKind::Output].map(|kind| Site { layer, kind });
        (0..self.num_hidden_layers).flat_map(attention).any(|site| self.keeps_packed(site))
    }

    /// Whether a card's kernels read the experts' weights of a layer packed.
    pub fn keeps_experts_packed(&self, layer: usize) -> bool {
        [SiteKind::GateUp, SiteKind::Down].into_iter().all(|kind| self.keeps_packed(Site { layer, kind }))
    }

    /// Whether a card's kernels read some of the experts' weights packed.
    pub fn has_packed_experts(&self) -> bool {
        let experts = |layer| [SiteKind::GateUp, SiteKind::Down].map(|kind| Site { layer, kind });
        (0..self.num_hidden_layers).flat_map(experts).any(|site| self.keeps_packed(site))
    }
}
