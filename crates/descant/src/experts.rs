//! `experts.json`: where tokens go among the experts, from the base and with the adapter, on rows of the training data.

use anyhow::Result;
use descant_lora::LoraAdapters;
use descant_model::{Bare, GptOss};
use descant_train::{ExpertLoad, Samples, expert_load};
use serde::{Deserialize, Serialize};

/// Version of the file.
const VERSION: u32 = 1;
/// The first rows of the data with at most so many tokens are counted.
const TOKENS: usize = 8192;

/// Both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Loads {
    schema_version: u32,
    /// Rows of the training data that went through the model, the first of the file.
    pub(crate) rows: usize,
    /// Experts that each token goes to in each layer.
    pub(crate) experts_per_token: usize,
    pub(crate) before: ExpertLoad,
    pub(crate) after: ExpertLoad,
}

impl Loads {
    /// Counts.
    pub(crate) fn count(model: &GptOss, adapters: &LoraAdapters, samples: &dyn Samples) -> Result<Self> {
        let mut tokens = 0;
        let fits = |at: &usize| {
            tokens += samples.tokens(*at);
            tokens <= TOKENS
        };
        let chosen = (0..samples.count()).take_while(fits).count();
        // One long row is cut rather than left out.
        let rows: Vec<Vec<u32>> = (0..chosen.max(1).min(samples.count()))
            .map(|at| Ok(samples.get(at)?.ids.iter().copied().take(TOKENS).collect()))
            .collect::<Result<_>>()?;
        let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        Ok(Self {
            schema_version: VERSION,
            rows: rows.len(),
            experts_per_token: model.config.num_experts_per_tok,
            before: expert_load(model, &Bare, &rows)?,
            after: expert_load(model, adapters, &rows)?,
        })
    }
}
