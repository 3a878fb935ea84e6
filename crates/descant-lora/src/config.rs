//! What to train: rank, scaling and the sites.

use descant_model::{Config, Site, SiteKind};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Largest rank; PEFT's readers stop far below.
pub const MAX_RANK: usize = 4096;

/// Settings of new adapters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank of the adapter.
    pub r: usize,
    /// The adapter's output is multiplied by alpha / r.
    pub alpha: f64,
    /// Modules with an adapter: `q_proj`, `k_proj`, `v_proj`, `o_proj`, `router`, `gate_up_proj`, `down_proj`.
    pub targets: Vec<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        let targets = ["q_proj", "k_proj", "v_proj", "o_proj"].map(str::to_owned).to_vec();
        Self { r: 8, alpha: 16.0, targets }
    }
}

impl LoraConfig {
    /// Checks ranges and names.
    ///
    /// # Errors
    /// A text naming the key, its value and what is allowed.
    pub fn validate(&self) -> std::result::Result<(), String> {
        if self.r == 0 || self.r > MAX_RANK {
            return Err(format!("lora.r is {}; expected 1 to {MAX_RANK}", self.r));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(format!("lora.alpha is {}; expected a positive number", self.alpha));
        }
        if self.targets.is_empty() {
            return Err("lora.targets is empty; nothing would be trained".into());
        }
        for (i, name) in self.targets.iter().enumerate() {
            if SiteKind::from_name(name).is_none() {
                let known = SiteKind::ALL.map(SiteKind::name).join(", ");
                return Err(format!("lora.targets: `{name}` matches nothing in gpt-oss; known: {known}"));
            }
            if self.targets[..i].contains(name) {
                return Err(format!("lora.targets: `{name}` is listed twice"));
            }
        }
        Ok(())
    }

    /// The sites of a model that these settings train, in order.
    ///
    /// # Errors
    /// The settings do not [`validate`](Self::validate).
    pub fn sites(&self, model: &Config) -> Result<Vec<Site>> {
        self.validate().map_err(Error::Config)?;
        let chosen = |kind: &SiteKind| self.targets.iter().any(|name| name == kind.name());
        Ok((0..model.num_hidden_layers)
            .flat_map(|layer| SiteKind::ALL.into_iter().filter(chosen).map(move |kind| Site { layer, kind }))
            .collect())
    }

    /// Factor on the product of a pair.
    pub fn scaling(&self) -> f32 {
        (self.alpha / self.r as f64) as f32
    }
}
