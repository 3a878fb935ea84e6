//! Cross-entropy in burn operations, all logits at once, and the divergence of a row on the host.

use burn::tensor::{Int, Tensor, activation::log_softmax};

/// See [`crate::token_losses`].
pub fn token_losses(hidden: Tensor<2>, head: &Tensor<2>, targets: &Tensor<1, Int>) -> Tensor<1> {
    let n_rows = hidden.dims()[0];
    let log_probabilities = log_softmax(hidden.matmul(head.clone().transpose()), 1);
    log_probabilities.gather(1, targets.clone().reshape([n_rows, 1])).reshape([n_rows]).neg()
}

/// See [`crate::divergences`]; of one row of logits from another.
pub fn divergence(one: &[f32], other: &[f32]) -> f64 {
    let (p, q) = (log_probabilities(one), log_probabilities(other));
    p.zip(q).map(|(p, q)| p.exp() * (p - q)).sum()
}

fn log_probabilities(logits: &[f32]) -> impl Iterator<Item = f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let from_most = move |logit: &f32| f64::from(*logit) - f64::from(most);
    let of_sum = logits.iter().map(|logit| from_most(logit).exp()).sum::<f64>().ln();
    logits.iter().map(move |logit| from_most(logit) - of_sum)
}

/// See [`crate::weighted_sum`].
pub fn weighted_sum(losses: Tensor<1>, weights: Tensor<1>) -> Tensor<1> {
    let weights = if losses.device().is_autodiff() { Tensor::from_inner(weights) } else { weights };
    (losses * weights).sum()
}
