//! Cross-entropy in burn operations, all logits at once.

use burn::tensor::{Int, Tensor, activation::log_softmax};

/// See [`crate::token_losses`].
pub fn token_losses(hidden: Tensor<2>, head: &Tensor<2>, targets: &Tensor<1, Int>) -> Tensor<1> {
    let n_rows = hidden.dims()[0];
    let log_probabilities = log_softmax(hidden.matmul(head.clone().transpose()), 1);
    log_probabilities.gather(1, targets.clone().reshape([n_rows, 1])).reshape([n_rows]).neg()
}

/// See [`crate::weighted_sum`].
pub fn weighted_sum(losses: Tensor<1>, weights: Tensor<1>) -> Tensor<1> {
    let weights = if losses.device().is_autodiff() { Tensor::from_inner(weights) } else { weights };
    (losses * weights).sum()
}
