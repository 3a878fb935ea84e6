//! Adapters as PEFT keeps them: a folder of `adapter_config.json` and `adapter_model.safetensors`.
//!
//! ```text
//! tensors of layer n, all below base_model.model.model.layers.n.
//!   self_attn.{q,k,v,o}_proj.lora_A.weight   [r, in]       .lora_B.weight  [out, r]
//!   mlp.router.lora_A.weight                 [r, in]       .lora_B.weight  [E, r]
//!   mlp.experts.base_layer.lora_A.weight     [E*r, in]     .lora_B.weight  [2I, r*E]   gate_up_proj
//!   mlp.experts.lora_A.weight                [E*r, in]     .lora_B.weight  [H, r*E]    down_proj
//! ```
//!
//! PEFT wraps the experts once for each targeted parameter, gate_up first and so innermost; where only one of the
//! two is targeted its tensors are `mlp.experts.lora_*`, whichever it is, and only the configuration says which. Row
//! `e*r + j` of A belongs to expert e, but of B it is column `j*E + e`. In memory both are by expert:
//! [`Factors`]. Adapters of Unsloth's 4-bit models keep one ordinary pair an expert
//! (`mlp.experts.gate_up_projs.e.lora_A.weight`, ...); these are read, not written.
//!
//! What a file asks for and we do not compute is refused by name; every tensor must be expected, and every
//! expected one there. No tensors of burn here: these are lists of f32 and where they belong.

mod base;
mod base_name;
mod card;
mod config;
mod error;
mod layout;
mod manifest;
mod names;
mod read;
mod resolve;
mod write;

use std::collections::BTreeMap;

pub use base::Base;
pub use base_name::{PublicName, hub_name, is_hub_name, short_name};
pub use config::{MAX_CONFIG_BYTES, PeftConfig, TargetModules};
use descant_model::Site;
pub use error::{Error, Result};
pub use manifest::{Manifest, ManifestRow};
pub(crate) use read::floats;
pub use read::{Adapter, load};
pub use write::{Files, files, save};

/// The configuration's name in an adapter's folder.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The tensors' name in an adapter's folder.
pub const TENSORS_FILE: &str = "adapter_model.safetensors";
/// The model card's name in an adapter's folder.
pub const CARD_FILE: &str = "README.md";

/// What the tensors' file calls the numbers in which training multiplied with experts, where they were not bf16.
pub(crate) const EXPERTS: &str = "descant.experts";

/// The pair of factors at one site: the weight there gains `scaling * B A`, for each expert its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// Rows of each A, columns of each B.
    pub rank: usize,
    /// Factor on the product.
    pub scaling: f32,
    /// `[matrices, rank, d_in]`, row-major.
    pub a: Vec<f32>,
    /// `[matrices, d_out, rank]`, row-major.
    pub b: Vec<f32>,
}

/// Factors by site, in the order of sites.
pub type Sites = BTreeMap<Site, Factors>;
