//! lm_head and cross-entropy in one: the loss of each target token, without ever holding all logits.
//!
//! Rows go through the vocabulary a few at a time. When a gradient will be asked for, the forward already makes
//! each row's gradient for a loss gradient of one, so that the backward only scales rows.

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(feature = "cuda")]
mod cuda_divergence;
mod divergence;
pub(crate) mod reference;
#[cfg(any(feature = "cuda", test))]
mod rows;
mod total;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch};
use burn::tensor::{Int, Tensor};

use crate::device::has_form_if;
use crate::memory::budget::room_for_logits;
use crate::memory::{LayerSizes, Workspace};
use crate::op::graph::operator;
pub use divergence::divergences;
pub use total::weighted_sum;

/// Bytes of logits that exist at once where nobody says how many may: enough that products are at their rate.
const LOGITS: usize = 256 << 20;

/// Where the logits of some rows may be on a card, and how many bytes of them at once.
///
/// How many decides in which order sums are made, so that it comes from sizes alone, never from what an earlier batch
/// left behind.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "read where a card's logits lie"))]
pub struct LogitsRoom {
    bytes: usize,
    within: Workspace,
}

impl Default for LogitsRoom {
    /// In memory of their own.
    fn default() -> Self {
        Self { bytes: LOGITS, within: Workspace::default() }
    }
}

impl LogitsRoom {
    /// What the layers of these sizes work in, for a batch of so many tokens: it is free between them.
    pub fn within(workspace: &Workspace, sizes: &LayerSizes, tokens: usize, in_order: bool) -> Self {
        Self { bytes: room_for_logits(sizes, tokens, in_order), within: workspace.clone() }
    }
}

/// Negative natural logarithm of each row's probability of its target.
///
/// On a card the logits of some rows exist at once, those that `room` has bytes for, but for the least that products
/// take.
///
/// # Shapes
/// - `hidden` `[rows, features]`, after the final norm
/// - `head` `[vocabulary, features]`, frozen
/// - `targets` `[rows]`, i32, within the vocabulary
pub fn token_losses(
    hidden: Tensor<2>,
    head: &Tensor<2>,
    targets: &Tensor<1, Int>,
    room: &LogitsRoom,
) -> Tensor<1> {
    let fits = hidden.dims()[1].is_multiple_of(8) && head.dims()[0].is_multiple_of(8);
    if has_form_if(&hidden.device(), hidden.dtype(), fits && hidden.dtype() == head.dtype()) {
        let (head, targets) = (head.clone().into_dispatch(), targets.clone().into_dispatch());
        return Tensor::from_dispatch(Dispatch::token_losses(
            hidden.into_dispatch(),
            head,
            targets,
            room.clone(),
        ));
    }
    reference::token_losses(hidden, head, targets)
}

/// Forward and backward of a backend.
pub(crate) trait LossKernel: Backend {
    /// Losses `[rows]`, and if asked each row's gradient of its loss, `[rows, features]`.
    fn losses(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        room: LogitsRoom,
        with_gradient: bool,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>);

    /// Rows of `x` `[rows, features]` times `factors` `[rows]`.
    fn scale_rows(x: FloatTensor<Self>, factors: FloatTensor<Self>) -> FloatTensor<Self>;
}

operator! {
    (Cube: cfg(feature = "cuda"), Flex, Autodiff) pub(crate) trait LossOp of LossKernel;
    fn token_losses(hidden: FloatTensor, head: FloatTensor, targets: IntTensor; room: LogitsRoom);
    B::losses(hidden, head, targets, room, false).0;
    [hidden] => |gradient: Option<_>, grad| [B::scale_rows(gradient.expect("a gradient was asked for"), grad)],
    |with_gradient| B::losses(hidden.primitive().clone(), head.into_primitive(), targets, room, with_gradient)
}
