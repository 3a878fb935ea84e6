//! What a micro-batch is trained towards: a loss for each trained token.
//!
//! The trainer weighs these losses, sums them and takes the gradient; where they come from is an objective's business.
//! Cross-entropy is the one of fine-tuning on given replies.

use std::fmt::Debug;

use burn::tensor::Tensor;
use descant_model::GptOss;

/// Gives each trained token its loss.
pub trait Objective: Debug {
    /// Losses in nats, `[rows]`, differentiable in `hidden`.
    ///
    /// # Shapes
    /// `hidden` `[tokens, features]` are the final hidden states of a micro-batch; the token behind row `rows[i]` of it
    /// is to be `targets[i]`.
    fn token_losses(&self, model: &GptOss, hidden: Tensor<2>, rows: &[usize], targets: &[u32]) -> Tensor<1>;
}

/// The negative log-probability of each target.
#[derive(Debug, Clone, Copy, Default)]
pub struct CrossEntropy;

impl Objective for CrossEntropy {
    fn token_losses(&self, model: &GptOss, hidden: Tensor<2>, rows: &[usize], targets: &[u32]) -> Tensor<1> {
        model.token_losses(hidden, rows, targets)
    }
}
