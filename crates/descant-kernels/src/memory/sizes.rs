//! What the memory of a layer depends on: its sizes, the adapters' ranks, the tokens, and what is kept.

use super::keep::Kept;
use crate::site::{PerSite, SiteKind};

/// The sizes of a layer that decide bytes and operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerSizes {
    /// Features of the residual stream.
    pub hidden: usize,
    /// Query heads times head_dim.
    pub query: usize,
    /// Key heads times head_dim.
    pub key_value: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Experts.
    pub n_experts: usize,
    /// Experts a token goes to.
    pub top_k: usize,
    /// Features between an expert's products.
    pub inner: usize,
    /// Whether matrices of attention's dense products come packed, to be unpacked before each.
    pub packed_attention: bool,
}

impl LayerSizes {
    /// Width of queries, keys and values beside each other.
    pub(crate) fn qkv(&self) -> usize {
        self.query + 2 * self.key_value
    }

    /// Numbers of attention's largest matrix.
    pub(crate) fn dense_numbers(&self) -> usize {
        self.hidden * self.qkv().max(self.query)
    }
}

/// Columns that low-rank paths of attention are padded to a multiple of.
const DENSE_COLUMNS: usize = 16;

/// Which low-rank paths a layer has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Paths {
    /// Columns of all ranks at query, key and value, padded; 0 for none.
    pub(crate) input: usize,
    /// Columns of the rank at attention's output, padded; 0 for none.
    pub(crate) output: usize,
    /// Rank at the router.
    pub(crate) router: usize,
    /// Rank at the experts' first product.
    pub(crate) gate_up: usize,
    /// Rank at the experts' second product.
    pub(crate) down: usize,
}

impl Paths {
    /// The larger of both, everywhere.
    #[cfg(feature = "cuda")]
    pub(crate) fn union(&self, other: &Self) -> Self {
        Self {
            input: self.input.max(other.input),
            output: self.output.max(other.output),
            router: self.router.max(other.router),
            gate_up: self.gate_up.max(other.gate_up),
            down: self.down.max(other.down),
        }
    }

    /// Of the ranks at the sites; 0 for none.
    pub(crate) fn new(ranks: &PerSite<usize>) -> Self {
        let columns = |rank: usize| rank.next_multiple_of(DENSE_COLUMNS);
        Self {
            input: columns(ranks[SiteKind::Query] + ranks[SiteKind::Key] + ranks[SiteKind::Value]),
            output: columns(ranks[SiteKind::Output]),
            router: ranks[SiteKind::Router],
            gate_up: ranks[SiteKind::GateUp],
            down: ranks[SiteKind::Down],
        }
    }
}

/// What is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) sizes: LayerSizes,
    pub(crate) tokens: usize,
    pub(crate) paths: Paths,
    pub(crate) kept: Kept,
    /// Whether experts' products want their rows in order, so that those of tokens are copied first.
    pub(crate) in_order: bool,
}

impl Plan {
    /// Pairs of a token and an expert that it goes to.
    pub(crate) fn pairs(&self) -> usize {
        self.tokens * self.sizes.top_k
    }
}
