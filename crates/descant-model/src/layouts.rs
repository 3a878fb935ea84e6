//! The layouts in which checkpoints name their tensors otherwise than transformers: OpenAI's, where experts are MXFP4,
//! and bitsandbytes', where every linear layer is a module of its own, experts too.
//!
//! What a tensor is in the model, and its name and shape in the unpacked layout, is in `names.rs`.

use descant_kernels::SiteKind;
use descant_quant::{Packing, mxfp4};

use crate::config::Config;
use crate::names::Part;
use crate::site::Site;

/// A tensor of a file in the unpacked or the published layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stored {
    /// What it is in the model.
    pub part: Part,
    /// Which piece of it.
    pub piece: Piece,
}

/// Which piece of a part a tensor holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Piece {
    /// All of it, as floats.
    Whole,
    /// Packed MXFP4, without the scales: `[experts, out, in / 32, 16]`.
    Blocks,
    /// A byte a block: `[experts, out, in / 32]`.
    Scales,
}

impl Stored {
    /// Every tensor of a checkpoint in the published layout, where experts are MXFP4, or in the unpacked one.
    pub fn all(config: &Config, packing: Packing) -> impl Iterator<Item = Self> + use<> {
        Part::all(config).flat_map(move |part| {
            let pieces: &[Piece] =
                if packing == Packing::Mxfp4 && part.site().is_some_and(|site| site.kind.is_expert()) {
                    &[Piece::Blocks, Piece::Scales]
                } else {
                    &[Piece::Whole]
                };
            pieces.iter().map(move |&piece| Self { part, piece })
        })
    }

    /// The tensor's name.
    pub fn name(self) -> String {
        let ending = match self.piece {
            Piece::Whole => "",
            Piece::Blocks => "_blocks",
            Piece::Scales => "_scales",
        };
        self.part.name() + ending
    }

    /// The tensor with this [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        let packed = |ending, piece| {
            let part = Part::from_name(name.strip_suffix(ending)?)?;
            part.site().filter(|site| site.kind.is_expert()).map(|_| Self { part, piece })
        };
        packed("_blocks", Piece::Blocks)
            .or_else(|| packed("_scales", Piece::Scales))
            .or_else(|| Part::from_name(name).map(|part| Self { part, piece: Piece::Whole }))
    }

    /// The tensor's shape.
    pub fn shape(self, config: &Config) -> Vec<usize> {
        let whole = self.part.shape(config);
        match (self.piece, &whole[..]) {
            (Piece::Blocks, &[experts, d_in, d_out]) => {
                vec![experts, d_out, d_in / mxfp4::BLOCK, mxfp4::BLOCK_BYTES]
            }
            (Piece::Scales, &[experts, d_in, d_out]) => vec![experts, d_out, d_in / mxfp4::BLOCK],
            _ => whole,
        }
    }
}

/// A linear layer of bitsandbytes' layout, where every expert is one: `NAME.weight` with its parts, `NAME.bias`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearLayer {
    /// What its weight is, or is a part of.
    pub weight: Part,
    /// What its bias is, or is a part of; lm_head has none.
    pub bias: Option<Part>,
    /// Which expert it is.
    pub expert: Option<usize>,
    /// Output features.
    pub d_out: usize,
    /// Input features.
    pub d_in: usize,
}

impl LinearLayer {
    /// Every linear layer of a model of this configuration.
    pub fn all(config: &Config) -> impl Iterator<Item = Self> + '_ {
        let head = Self {
            weight: Part::Head,
            bias: None,
            expert: None,
            d_out: config.vocab_size,
            d_in: config.hidden_size,
        };
        let sites = (0..config.num_hidden_layers)
            .flat_map(|layer| SiteKind::ALL.into_iter().map(move |kind| Site { layer, kind }));
        let layers = sites.flat_map(move |site| {
            let dims = config.site_dims(site.kind);
            (0..dims.n_matrices).map(move |n| Self {
                weight: Part::weight(site),
                bias: Some(Part::bias(site)),
                expert: site.kind.is_expert().then_some(n),
                d_out: dims.d_out,
                d_in: dims.d_in,
            })
        });
        [head].into_iter().chain(layers)
    }

    /// The module's names, the usual one first: some versions wrap the router.
    pub fn names(&self) -> Vec<String> {
        let Some(site) = self.weight.site() else { return vec!["lm_head".to_owned()] };
        match self.expert.and_then(|expert| site.expert_module(expert)) {
            Some(name) => vec![name],
            None if site.kind == SiteKind::Router => {
                vec![format!("{}.linear", site.module()), site.module()]
            }
            None => vec![site.module()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/configs/gpt-oss-20b.json");
        Config::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn every_name_leads_back_to_its_tensor_and_no_two_are_equal() {
        let config = config();
        for packing in [Packing::Plain, Packing::Mxfp4] {
            let all: Vec<_> = Stored::all(&config, packing).collect();
            let names: std::collections::BTreeSet<_> = all.iter().map(|stored| stored.name()).collect();
            assert_eq!(names.len(), all.len());
            assert_eq!(all.len(), 3 + 24 * if packing == Packing::Mxfp4 { 19 } else { 17 });
            for stored in all {
                assert_eq!(Stored::from_name(&stored.name()), Some(stored));
            }
        }
    }

    #[test]
    fn names_that_only_look_alike_are_none() {
        for name in [
            "model.layers.01.self_attn.sinks",
            "model.layers.1.q_proj.weight",
            "model.layers.1.mlp.router",
            "model.layers.1.mlp.router_bias",
            "model.layers.1.mlp.experts.down_proj.weight",
            "model.layers.1.mlp.experts.down_proj.bias",
            "model.layers.1.self_attn.q_proj.weight_blocks",
            "model.layers.1.mlp.experts.down_proj_bias_blocks",
            "model.norm",
            "model.layers.",
            "",
        ] {
            assert_eq!(Stored::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn shapes_are_those_of_the_published_model() {
        let config = config();
        let shape = |name: &str| Stored::from_name(name).unwrap().shape(&config);
        assert_eq!(shape("lm_head.weight"), [201_088, 2880]);
        assert_eq!(shape("model.layers.3.self_attn.q_proj.weight"), [4096, 2880]);
        assert_eq!(shape("model.layers.3.self_attn.sinks"), [64]);
        assert_eq!(shape("model.layers.3.mlp.router.bias"), [32]);
        assert_eq!(shape("model.layers.3.mlp.experts.gate_up_proj"), [32, 2880, 5760]);
        assert_eq!(shape("model.layers.3.mlp.experts.gate_up_proj_blocks"), [32, 5760, 90, 16]);
        assert_eq!(shape("model.layers.3.mlp.experts.down_proj_scales"), [32, 2880, 90]);
        assert_eq!(shape("model.layers.3.mlp.experts.down_proj_bias"), [32, 2880]);
    }

    #[test]
    fn linear_layers_are_named_as_bitsandbytes_names_them() {
        let config = config();
        let names: Vec<_> = LinearLayer::all(&config).flat_map(|layer| layer.names()).collect();
        assert_eq!(names.len(), 1 + 24 * (4 + 2 + 2 * 32));
        for expected in
            ["lm_head", "model.layers.0.mlp.router.linear", "model.layers.23.mlp.experts.down_projs.31"]
        {
            assert!(names.iter().any(|name| name == expected), "{expected}");
        }
    }
}
