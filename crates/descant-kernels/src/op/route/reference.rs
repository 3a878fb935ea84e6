//! Routing in burn operations.

use burn::tensor::{DType, Int, Tensor, activation::softmax};

use super::routing::Routing;

/// See [`crate::route()`]. The largest logit is taken and masked, `k` times, so that ties go to the lower expert.
pub fn route(logits: &Tensor<2>, k: usize) -> Routing {
    let device = logits.device().inner();
    let [n_tokens, n_experts] = logits.dims();
    let mut rest = logits.clone().inner();
    let columns = Tensor::<1, Int>::arange(0..n_experts as i64, &device).unsqueeze::<2>();
    let mut chosen = Vec::with_capacity(k);
    for _ in 0..k {
        let best = rest.clone().argmax(1);
        let taken =
            columns.clone().expand([n_tokens, n_experts]).equal(best.clone().expand([n_tokens, n_experts]));
        rest = rest.mask_fill(taken, f32::NEG_INFINITY);
        chosen.push(best);
    }
    let experts = Tensor::cat(chosen, 1);
    let n_pairs = n_tokens * k;
    let numbers = Tensor::<1, Int>::arange(0..n_pairs as i64, &device);
    // Expert first, pair number second: keys are distinct, so the order is unique.
    let keys = experts.clone().reshape([n_pairs]) * n_pairs as i64 + numbers;
    let pairs = keys.argsort(0);
    let places = pairs.clone().argsort(0);
    let borders = Tensor::<1, Int>::arange(0..n_experts as i64 + 1, &device).reshape([n_experts + 1, 1]);
    let all = experts.clone().reshape([1, n_pairs]).expand([n_experts + 1, n_pairs]);
    let offsets =
        all.lower(borders.expand([n_experts + 1, n_pairs])).int().sum_dim(1).reshape([n_experts + 1]);
    Routing {
        experts: experts.cast(DType::I32),
        pairs: pairs.cast(DType::I32),
        places: places.cast(DType::I32),
        offsets: offsets.cast(DType::I32),
    }
}

/// See [`crate::expert_weights`].
pub fn expert_weights(logits: Tensor<2>, routing: &Routing) -> Tensor<2> {
    softmax(logits.gather(1, routing.experts.clone()), 1)
}

/// See [`crate::take_tokens`].
pub fn take_tokens(x: Tensor<2>, routing: &Routing) -> Tensor<2> {
    x.select(0, routing.pairs.clone() / routing.top_k() as i64)
}

/// See [`crate::combine_experts`].
pub fn combine_experts(y: Tensor<2>, weights: Tensor<2>, routing: &Routing) -> Tensor<2> {
    let [n_tokens, k] = weights.dims();
    let width = y.dims()[1];
    let by_token = y.select(0, routing.places.clone()).reshape([n_tokens, k, width]);
    (by_token * weights.unsqueeze_dim(2)).sum_dim(1).reshape([n_tokens, width])
}
