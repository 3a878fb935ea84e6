//! Routing on a CUDA card: the launches. The operators made of them are in `cuda_ops.rs`.

use super::sizes::CHUNK;
use crate::cuda::geometry::{Block, FEW_PAIRS, FEW_PAIRS_EXPERTS, MAX_EXPERTS, TAKE_ROWS_SM90};
use crate::cuda::plain::{EACH, FEW_TOP_K, MAX_TOP_K, PAIR_ROW, ROUTER_TOKENS};
use crate::cuda::{Arg, CudaError, Result, Run};

/// The sort, a pair a thread.
const SORT: Block = Block::of(CHUNK as u32);

/// Whether the kernels choose `top_k` of so many experts.
pub(crate) const fn can_choose(top_k: usize, n_experts: usize) -> bool {
    n_experts <= MAX_EXPERTS && top_k <= MAX_TOP_K && top_k <= n_experts
}

fn check(top_k: usize, n_experts: usize) -> Result<()> {
    if can_choose(top_k, n_experts) {
        return Ok(());
    }
    let what = format!("{top_k} of {n_experts} experts; at most {MAX_TOP_K} of {MAX_EXPERTS}");
    Err(CudaError::NoKernel { operator: "route", what })
}

/// The router's weight, `[experts, hidden]`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RouterWeight {
    /// As published.
    Bf16(u64),
    /// With something added that bf16 would lose.
    F32(u64),
}

impl RouterWeight {
    fn address(self) -> u64 {
        match self {
            Self::Bf16(address) | Self::F32(address) => address,
        }
    }
}

/// Up to so many tokens, a block that looks for experts has one tile of them, else two: that would leave multiprocessors without work.
const FEW_TOKENS: usize = 4096;

/// `logits = x · weight^T + bias`, f32 `[tokens, experts]`, and of each token what [`choose`] chooses.
pub(crate) fn router_choice(
    run: &Run<'_>,
    x: u64,
    weight: RouterWeight,
    bias: u64,
    [logits, experts, weights]: [u64; 3],
    [n_tokens, hidden, n_experts, top_k]: [usize; 4],
) -> Result<()> {
    check(top_k, n_experts)?;
    let is_few = n_tokens <= FEW_TOKENS;
    let entry = match (weight, is_few) {
        (RouterWeight::Bf16(_), false) => "router_choice",
        (RouterWeight::Bf16(_), true) => "router_choice_few",
        (RouterWeight::F32(_), false) => "router_choice_f32",
        (RouterWeight::F32(_), true) => "router_choice_few_f32",
    };
    let addresses = [x, weight.address(), bias, logits, experts, weights];
    let arguments = Arg::list(addresses, [n_tokens, hidden, n_experts, top_k]);
    let tiles = if is_few { 1 } else { 2 };
    let blocks = n_tokens.div_ceil(tiles * ROUTER_TOKENS);
    run.launch_early(run.kernel("route", entry, &[])?, blocks, EACH.threads, 0, &arguments)?;
    run.keep_routing(experts, n_tokens * top_k)
}

/// The `top_k` experts with the largest logits, and the softmax over them.
pub(crate) fn choose(
    run: &Run<'_>,
    logits: u64,
    experts: u64,
    weights: u64,
    [n_tokens, n_experts, top_k]: [usize; 3],
) -> Result<()> {
    check(top_k, n_experts)?;
    let arguments = Arg::list([logits, experts, weights], [n_tokens, n_experts, top_k]);
    run.launch(run.kernel("route", "choose", &[])?, EACH.warps_over(n_tokens), EACH.threads, 0, &arguments)?;
    run.keep_routing(experts, n_tokens * top_k)
}

/// Sorts pairs by expert, in the order of their numbers within an expert.
pub(crate) fn sort(
    run: &Run<'_>,
    experts: u64,
    pairs: u64,
    places: u64,
    offsets: u64,
    scratch: u64,
    [n_pairs, n_experts]: [usize; 2],
) -> Result<()> {
    if n_pairs <= FEW_PAIRS && n_experts <= FEW_PAIRS_EXPERTS {
        let arguments = Arg::list([experts, pairs, places, offsets], [n_pairs, n_experts]);
        let kernel = run.kernel("route/sort", "sort_few_pairs", &[])?;
        return run.launch_early(kernel, 1usize, SORT.threads, 0, &arguments);
    }
    let blocks = n_pairs.div_ceil(CHUNK).max(1);
    let arguments = Arg::list([experts, scratch], [n_pairs, n_experts]);
    run.launch_early(run.kernel("route/sort", "count_pairs", &[])?, blocks, SORT.threads, 0, &arguments)?;
    let arguments = Arg::list([experts, scratch, pairs, places, offsets], [n_pairs, n_experts]);
    run.launch_early(run.kernel("route/sort", "sort_pairs", &[])?, blocks, SORT.threads, 0, &arguments)
}

/// `out = residual + sum of a token's rows of y by their weights`; weights and residual may be none (0).
pub(crate) fn combine(
    run: &Run<'_>,
    y: u64,
    weights: u64,
    places: u64,
    residual: u64,
    out: u64,
    [n_tokens, hidden, top_k]: [usize; 3],
) -> Result<()> {
    let vectors = n_tokens * hidden / 8;
    let mut arguments = Arg::list([y, weights, places, residual, out], []);
    arguments.extend([Arg::I64(vectors as i64), Arg::size(hidden), Arg::size(top_k)]);
    run.launch_early(
        run.kernel("route/rows", "combine", &[])?,
        EACH.over(vectors),
        EACH.threads,
        0,
        &arguments,
    )
}

/// Addresses of [`combine_backward`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct CombineBackward {
    /// Gradient of each pair's expert input, `[pairs, hidden]`, sorted.
    pub(crate) d_rows: u64,
    /// Sorted place of each pair.
    pub(crate) places: u64,
    /// Expert of each pair.
    pub(crate) experts: u64,
    /// The router's weight of each pair, and its gradient, without what the second product's bias gives.
    pub(crate) weights: u64,
    pub(crate) d_weights: u64,
    pub(crate) router: RouterWeight,
    /// `[experts, hidden]`, of the experts' second product.
    pub(crate) bias: u64,
    /// The residual stream before the norm, the norm's factors and weight.
    pub(crate) middle: u64,
    pub(crate) inverse_rms: u64,
    pub(crate) norm: u64,
    /// Gradient of the layer's output, and the result; they may be one.
    pub(crate) grad: u64,
    pub(crate) out: u64,
    /// Gradient of the chosen logits, f32 `[tokens, k]`.
    pub(crate) d_logits: u64,
}

/// From the gradients of the experts' inputs and of the router's weights to that of the residual stream.
pub(crate) fn combine_backward(
    run: &Run<'_>,
    at: &CombineBackward,
    [n_tokens, hidden, top_k]: [usize; 3],
) -> Result<()> {
    let CombineBackward { d_rows, places, experts, weights, d_weights, .. } = *at;
    let is_f32 = matches!(at.router, RouterWeight::F32(_));
    let given = [d_rows, places, experts, d_weights, weights, at.router.address(), at.bias];
    let stream = [at.middle, at.inverse_rms, at.norm, at.grad, at.out, at.d_logits];
    let mut arguments = given.map(Arg::Ptr).to_vec();
    arguments.extend(Arg::list(stream, [hidden, top_k, is_f32.into()]));
    let entry = if top_k <= FEW_TOP_K { "combine_backward" } else { "combine_backward_many" };
    run.launch_early(run.kernel("route/rows", entry, &[])?, n_tokens, PAIR_ROW.threads, 0, &arguments)
}

/// `weights = softmax of the chosen logits`, f32 `[tokens, k]`.
pub(crate) fn expert_weights(
    run: &Run<'_>,
    logits: u64,
    experts: u64,
    weights: u64,
    sizes: [usize; 3],
) -> Result<()> {
    let arguments = Arg::list([logits, experts, weights], sizes);
    run.launch(run.kernel("route", "expert_weights", &[])?, EACH.over(sizes[0]), EACH.threads, 0, &arguments)
}

/// Gradient of all logits, f32 `[tokens, experts]`, from that of the weights.
pub(crate) fn expert_weights_backward(
    run: &Run<'_>,
    weights: u64,
    experts: u64,
    grad: u64,
    d_logits: u64,
    sizes: [usize; 3],
) -> Result<()> {
    let arguments = Arg::list([weights, experts, grad, d_logits], sizes);
    let kernel = run.kernel("route", "expert_weights_backward", &[])?;
    run.launch(kernel, EACH.warps_over(sizes[0]), EACH.threads, 0, &arguments)
}

/// A row for each sorted place.
pub(crate) fn take(
    run: &Run<'_>,
    x: u64,
    places: u64,
    out: u64,
    [n_tokens, hidden, top_k]: [usize; 3],
) -> Result<()> {
    let arguments = Arg::list([x, places, out], [n_tokens, hidden, top_k]);
    // Two rows for each warp.
    let shared = TAKE_ROWS_SM90.threads as usize / 32 * 2 * 2 * hidden;
    if run.gpu().is_hopper() && 2 * shared <= run.gpu().architecture().shared_memory() as usize {
        let warps = TAKE_ROWS_SM90.threads as usize / 32;
        let grid = n_tokens.div_ceil(warps).min(2 * run.gpu().multiprocessors() as usize);
        let kernel = run.kernel("route/rows_sm90", "take_tokens", &[])?;
        return run.launch_early(kernel, grid, TAKE_ROWS_SM90.threads, shared as u32, &arguments);
    }
    run.launch(
        run.kernel("route/rows", "take_tokens", &[])?,
        EACH.warps_over(n_tokens),
        EACH.threads,
        0,
        &arguments,
    )
}

/// Gradients of [`combine`]: of `y`, and of the weights.
pub(crate) fn combine_gradients(
    run: &Run<'_>,
    [y, weights, pairs, grad]: [u64; 4],
    [dy, d_weights]: [u64; 2],
    [n_pairs, hidden, top_k]: [usize; 3],
) -> Result<()> {
    let arguments = Arg::list([y, weights, pairs, grad, dy, d_weights], [hidden, top_k]);
    run.launch(run.kernel("route/rows", "combine_gradients", &[])?, n_pairs, PAIR_ROW.threads, 0, &arguments)
}
