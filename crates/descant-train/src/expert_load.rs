//! How many tokens go to each expert, with and without an adapter: what training did to the routing.
//!
//! Forward passes alone, of some rows, beside the training; nothing of a run depends on them.

use descant_kernels::read_indices;
use descant_model::{Batch, GptOss, Overlay};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Tokens that go through the model at once: little beside a training step.
const AT_ONCE: usize = 512;

/// Tokens that each expert got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpertLoad {
    /// Tokens that went through the model. Each went to as many experts of a layer as the model's configuration says.
    pub tokens: u64,
    /// Of each layer, of each expert.
    pub layers: Vec<Vec<u64>>,
}

/// Counts where the tokens of these rows go.
///
/// # Errors
/// A row has an id outside the vocabulary, or the device failed.
pub fn expert_load(model: &GptOss, overlay: &dyn Overlay, rows: &[&[u32]]) -> Result<ExpertLoad> {
    // What a training step works in is not needed here.
    model.workspace().make_way(model.device())?;
    let config = &model.config;
    let mut layers = vec![vec![0; config.num_local_experts]; config.num_hidden_layers];
    let mut tokens = 0;
    for rows in batches(rows) {
        let batch = Batch::new(rows.iter().copied(), config.vocab_size)?;
        tokens += batch.ids().len() as u64;
        let chosen = read_indices(model.chosen_experts(&batch, overlay))?;
        for (counts, experts) in layers.iter_mut().zip(chosen) {
            for expert in experts {
                counts[expert as usize] += 1;
            }
        }
    }
    Ok(ExpertLoad { tokens, layers })
}

/// Rows in groups of about [`AT_ONCE`] tokens; a longer row is a group of its own.
fn batches<'r>(rows: &[&'r [u32]]) -> Vec<Vec<&'r [u32]>> {
    let mut batches: Vec<Vec<&[u32]>> = Vec::new();
    let mut held = usize::MAX;
    for row in rows.iter().filter(|row| !row.is_empty()) {
        if held.saturating_add(row.len()) > AT_ONCE {
            batches.push(Vec::new());
            held = 0;
        }
        held += row.len();
        batches.last_mut().expect("one was pushed").push(row);
    }
    batches
}
