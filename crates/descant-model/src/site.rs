//! The places in a gpt-oss layer that an adapter may change, and the shape of the weight there.
//!
//! A site is named by layer and kind. Everything that counts parameters, names adapter tensors or asks the
//! overlay for a delta speaks of sites, so that a target that matches nothing can be told apart from one that
//! does. Tensor names of files live elsewhere (`names.rs` for checkpoints, descant-lora for PEFT).

use crate::config::Config;

/// What kind of weight a site is.
///
/// The order is the order inside a layer, which is the order of manifests and of the optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SiteKind {
    /// `self_attn.q_proj`
    Query,
    /// `self_attn.k_proj`
    Key,
    /// `self_attn.v_proj`
    Value,
    /// `self_attn.o_proj`
    Output,
    /// `mlp.router`
    Router,
    /// `mlp.experts.gate_up_proj`, one matrix an expert, gate and up interleaved on the output axis
    GateUp,
    /// `mlp.experts.down_proj`, one matrix an expert
    Down,
}

impl SiteKind {
    /// All kinds, in order.
    pub const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Router, Self::GateUp, Self::Down];

    /// The name users write in a target list: the module's name in the published layout.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "q_proj",
            Self::Key => "k_proj",
            Self::Value => "v_proj",
            Self::Output => "o_proj",
            Self::Router => "router",
            Self::GateUp => "gate_up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The kind with this [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether there is one matrix for each expert.
    pub fn is_expert(self) -> bool {
        matches!(self, Self::GateUp | Self::Down)
    }

    /// The weight's shape under this configuration.
    pub fn dims(self, config: &Config) -> SiteDims {
        let hidden = config.hidden_size;
        let query = config.num_attention_heads * config.head_dim;
        let key_value = config.num_key_value_heads * config.head_dim;
        let (d_in, d_out) = match self {
            Self::Query => (hidden, query),
            Self::Key | Self::Value => (hidden, key_value),
            Self::Output => (query, hidden),
            Self::Router => (hidden, config.num_local_experts),
            Self::GateUp => (hidden, 2 * config.intermediate_size),
            Self::Down => (config.intermediate_size, hidden),
        };
        SiteDims { d_in, d_out, n_matrices: if self.is_expert() { config.num_local_experts } else { 1 } }
    }
}

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
