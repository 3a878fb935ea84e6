//! Which experts tokens go to, and in which order.

use burn::tensor::{Int, Tensor};

use crate::op::linear::Groups;

/// Where the tokens of a batch go. Index tensors are i32.
#[derive(Debug, Clone)]
pub struct Routing {
    /// Chosen experts, largest logit first, ties to the lower number: `[tokens, k]`.
    pub experts: Tensor<2, Int>,
    /// Pair at each sorted place: `[tokens * k]`.
    pub pairs: Tensor<1, Int>,
    /// Sorted place of each pair, the inverse of `pairs`: `[tokens * k]`.
    pub places: Tensor<1, Int>,
    /// First sorted place of each expert, and the end: `[experts + 1]`.
    pub offsets: Tensor<1, Int>,
}

impl Routing {
    /// The sorted pairs as rows of grouped products.
    pub fn groups(&self) -> Groups {
        Groups::Sorted { offsets: self.offsets.clone() }
    }

    /// Experts a token goes to.
    pub fn top_k(&self) -> usize {
        self.experts.dims()[1]
    }
}
