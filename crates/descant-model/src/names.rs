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
//! What the published layout and bitsandbytes' name otherwise is in `layouts.rs`. Reading, writing and PEFT's names
//! (descant-lora) derive from here. Types of elements are the readers' business.

use descant_kernels::SiteKind;

use crate::config::Config;
use crate::site::Site;

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

/// The shape of the weight at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SiteDims {
    /// Input features.
    pub d_in: usize,
    /// Output features.
    pub d_out: usize,
    /// Matrices of this shape: the number of experts, or 1.
    pub n_matrices: usize,
}

impl SiteDims {
    /// Parameters that a rank-`rank` adapter has here: A is `[rank, d_in]`, B is `[d_out, rank]`, each once a matrix.
    pub fn lora_parameters(&self, rank: usize) -> usize {
        self.n_matrices * rank * (self.d_in + self.d_out)
    }
}

impl Config {
    /// The shape of the weight at each site of this kind.
    pub fn site_dims(&self, kind: SiteKind) -> SiteDims {
        let hidden = self.hidden_size;
        let query = self.query_width();
        let key_value = self.key_value_width();
        let (d_in, d_out) = match kind {
            SiteKind::Query => (hidden, query),
            SiteKind::Key | SiteKind::Value => (hidden, key_value),
            SiteKind::Output => (query, hidden),
            SiteKind::Router => (hidden, self.num_local_experts),
            SiteKind::GateUp => (hidden, 2 * self.intermediate_size),
            SiteKind::Down => (self.intermediate_size, hidden),
        };
        SiteDims { d_in, d_out, n_matrices: if kind.is_expert() { self.num_local_experts } else { 1 } }
    }
}

/// The module that holds the weight of a kind, below its layer: `self_attn.q_proj`, `mlp.router`, `mlp.experts`.
pub fn module_in_layer(kind: SiteKind) -> String {
    match kind {
        SiteKind::Query | SiteKind::Key | SiteKind::Value | SiteKind::Output => {
            format!("self_attn.{}", kind.name())
        }
        SiteKind::Router => "mlp.router".to_owned(),
        SiteKind::GateUp | SiteKind::Down => "mlp.experts".to_owned(),
    }
}

/// The weight as a parameter of that module: `....q_proj.weight`, `mlp.experts.down_proj`.
pub fn parameter_in_layer(kind: SiteKind) -> String {
    let name = if kind.is_expert() { kind.name() } else { "weight" };
    format!("{}.{name}", module_in_layer(kind))
}

/// The path of the weight without `.weight`, which is that of its module where it has one of its own.
pub fn path_in_layer(kind: SiteKind) -> String {
    if kind.is_expert() { parameter_in_layer(kind) } else { module_in_layer(kind) }
}

impl Site {
    /// As [`module_in_layer`], with the layer: `model.layers.n.self_attn.q_proj`.
    pub fn module(self) -> String {
        format!("{LAYERS}{}.{}", self.layer, module_in_layer(self.kind))
    }

    /// As [`parameter_in_layer`], with the layer.
    pub fn parameter(self) -> String {
        format!("{LAYERS}{}.{}", self.layer, parameter_in_layer(self.kind))
    }

    /// As [`path_in_layer`], with the layer.
    pub(crate) fn path(self) -> String {
        format!("{LAYERS}{}.{}", self.layer, path_in_layer(self.kind))
    }

    /// The module of one expert where each is a linear layer (bitsandbytes, Unsloth): `....down_projs.7`.
    pub fn expert_module(self, expert: usize) -> Option<String> {
        self.kind.is_expert().then(|| format!("{}s.{expert}", self.parameter()))
    }
}
