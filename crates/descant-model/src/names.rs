//! The tensors of gpt-oss checkpoints: every name and shape, once, read in both directions.
//!
//! ```text
//! Part                          unpacked (transformers)                       published (MXFP4)
//! Embedding, Norm, Head         model.embed_tokens.weight, model.norm.weight, lm_head.weight
//! (n, InputNorm), (n, PostNorm) model.layers.n.input_layernorm.weight, ...post_attention_layernorm.weight
//! (n, Sinks)                    ....self_attn.sinks
//! (n, Weight(q, k, v, o))       ....self_attn.q_proj.weight [out, in]         the same
//! (n, Weight(Router))           ....mlp.router.weight [experts, in]           the same
//! (n, Weight(GateUp, Down))     ....mlp.experts.down_proj [experts, in, out]  ..._blocks, ..._scales, rows [out]
//! (n, Bias(kind))               the same with .bias; for experts ..._bias [experts, out]
//! ```
//!
//! In bitsandbytes' layout every linear layer is a module of its own, experts too: [`LinearLayer`].
//! Reading, writing and PEFT's names (descant-lora) derive from here. Types of elements are the readers' business.

use descant_quant::Packing;

use crate::config::Config;
use descant_kernels::SiteKind;

use crate::site::Site;

/// Elements of an MXFP4 block.
const BLOCK: usize = descant_quant::mxfp4::BLOCK;
/// What every layer's names begin with.
const LAYERS: &str = "model.layers.";

/// What a tensor is in the model, whatever file it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The embedding, `[vocabulary, hidden]`.
    Embedding,
    /// Of layer n.
    Layer(usize, LayerPart),
    /// The norm behind the last layer, `[hidden]`.
    Norm,
    /// lm_head, `[vocabulary, hidden]`.
    Head,
}

/// What a tensor is in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerPart {
    /// Norm before attention, `[hidden]`.
    InputNorm,
    /// Sinks, `[heads]`.
    Sinks,
    /// Norm before the experts, `[hidden]`.
    PostNorm,
    /// The weight at a site.
    Weight(SiteKind),
    /// The bias at a site.
    Bias(SiteKind),
}

impl Part {
    /// Every part of a model of this configuration, layer by layer.
    pub fn all(config: &Config) -> impl Iterator<Item = Self> + use<> {
        let of_site = |kind| [LayerPart::Weight(kind), LayerPart::Bias(kind)];
        let in_layer: Vec<_> = [LayerPart::InputNorm, LayerPart::Sinks, LayerPart::PostNorm]
            .into_iter()
            .chain(SiteKind::ALL.into_iter().flat_map(of_site))
            .collect();
        let layers = (0..config.num_hidden_layers)
            .flat_map(move |n| in_layer.clone().into_iter().map(move |part| Self::Layer(n, part)));
        [Self::Embedding].into_iter().chain(layers).chain([Self::Norm, Self::Head])
    }

    /// The weight at a site.
    pub fn weight(site: Site) -> Self {
        Self::Layer(site.layer, LayerPart::Weight(site.kind))
    }

    /// The bias at a site.
    pub fn bias(site: Site) -> Self {
        Self::Layer(site.layer, LayerPart::Bias(site.kind))
    }

    /// The site whose weight this is.
    pub fn site(self) -> Option<Site> {
        match self {
            Self::Layer(layer, LayerPart::Weight(kind)) => Some(Site { layer, kind }),
            _ => None,
        }
    }

    /// The name in the unpacked layout, which is transformers'.
    pub fn name(self) -> String {
        match self {
            Self::Embedding => "model.embed_tokens.weight".to_owned(),
            Self::Norm => "model.norm.weight".to_owned(),
            Self::Head => "lm_head.weight".to_owned(),
            Self::Layer(layer, part) => match part {
                LayerPart::InputNorm => format!("{LAYERS}{layer}.input_layernorm.weight"),
                LayerPart::PostNorm => format!("{LAYERS}{layer}.post_attention_layernorm.weight"),
                LayerPart::Sinks => format!("{LAYERS}{layer}.self_attn.sinks"),
                LayerPart::Weight(kind) => Site { layer, kind }.parameter(),
                LayerPart::Bias(kind) if kind.is_expert() => {
                    format!("{}_bias", Site { layer, kind }.parameter())
                }
                LayerPart::Bias(kind) => format!("{}.bias", Site { layer, kind }.module()),
            },
        }
    }

    /// The part with this [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        let part = match name.strip_prefix(LAYERS) {
            None => [Self::Embedding, Self::Norm, Self::Head].into_iter().find(|part| part.name() == name)?,
            Some(rest) => {
                let (layer, rest) = rest.split_once('.')?;
                Self::Layer(layer.parse().ok()?, LayerPart::from_ending(rest)?)
            }
        };
        // Only one spelling of a number is a name.
        (part.name() == name).then_some(part)
    }

    /// The shape in the unpacked layout: weights `[out, in]`, but `[experts, in, out]` for experts.
    pub fn shape(self, config: &Config) -> Vec<usize> {
        match self {
            Self::Embedding | Self::Head => vec![config.vocab_size, config.hidden_size],
            Self::Norm | Self::Layer(_, LayerPart::InputNorm | LayerPart::PostNorm) => {
                vec![config.hidden_size]
            }
            Self::Layer(_, LayerPart::Sinks) => vec![config.num_attention_heads],
            Self::Layer(_, LayerPart::Weight(kind)) => {
                let dims = config.site_dims(kind);
                if kind.is_expert() {
                    vec![dims.n_matrices, dims.d_in, dims.d_out]
                } else {
                    vec![dims.d_out, dims.d_in]
                }
            }
            Self::Layer(_, LayerPart::Bias(kind)) => {
                let dims = config.site_dims(kind);
                if kind.is_expert() { vec![dims.n_matrices, dims.d_out] } else { vec![dims.d_out] }
            }
        }
    }
}

impl LayerPart {
    /// From what follows the layer's number.
    fn from_ending(rest: &str) -> Option<Self> {
        match rest {
            "input_layernorm.weight" => Some(Self::InputNorm),
            "post_attention_layernorm.weight" => Some(Self::PostNorm),
            "self_attn.sinks" => Some(Self::Sinks),
            _ => {
                let last = |text: &str| SiteKind::from_name(text.rsplit('.').next()?);
                match (rest.strip_suffix(".weight"), rest.strip_suffix(".bias"), rest.strip_suffix("_bias")) {
                    (Some(module), ..) => last(module).map(Self::Weight),
                    (_, Some(module), _) | (_, _, Some(module)) => last(module).map(Self::Bias),
                    _ => last(rest).map(Self::Weight),
                }
            }
        }
    }
}

impl Site {
    /// The module that holds the weight: `model.layers.n.self_attn.q_proj`, `....mlp.router`, `....mlp.experts`.
    pub fn module(self) -> String {
        let Self { layer, kind } = self;
        match kind {
            SiteKind::Query | SiteKind::Key | SiteKind::Value | SiteKind::Output => {
                format!("{LAYERS}{layer}.self_attn.{}", kind.name())
            }
            SiteKind::Router => format!("{LAYERS}{layer}.mlp.router"),
            SiteKind::GateUp | SiteKind::Down => format!("{LAYERS}{layer}.mlp.experts"),
        }
    }

    /// The weight as a parameter of that module: `....q_proj.weight`, `....mlp.experts.down_proj`.
    pub fn parameter(self) -> String {
        let name = if self.kind.is_expert() { self.kind.name() } else { "weight" };
        format!("{}.{name}", self.module())
    }

    /// The path of the weight without `.weight`, which is that of its module where it has one of its own.
    pub(crate) fn path(self) -> String {
        if self.kind.is_expert() { self.parameter() } else { self.module() }
    }

    /// The module of one expert where each is a linear layer (bitsandbytes, Unsloth): `....down_projs.7`.
    pub fn expert_module(self, expert: usize) -> Option<String> {
        self.kind.is_expert().then(|| format!("{}s.{expert}", self.parameter()))
    }
}

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
            (Piece::Blocks, &[experts, d_in, d_out]) => vec![experts, d_out, d_in / BLOCK, BLOCK / 2],
            (Piece::Scales, &[experts, d_in, d_out]) => vec![experts, d_out, d_in / BLOCK],
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
