//! The products of a layer that an adapter may change, a value for each of them, and the low-rank paths beside them.
//!
//! What is said of each product is asked for by its name and never by its place in a list.

use std::ops::{Index, IndexMut};

/// What kind of weight a site is.
///
/// The order is the order inside a layer, which is the order of manifests and of the optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SiteKind {
    /// `self_attn.q_proj`
    Query,
    /// `self_attn.k_proj`
    Key,
    /// `self_attn.v_proj`
    Value,
    /// `self_attn.o_proj`
    Output,
    /// `mlp.router`
    Router,
    /// `mlp.experts.gate_up_proj`, one matrix an expert, gate and up interleaved on the output axis
    GateUp,
    /// `mlp.experts.down_proj`, one matrix an expert
    Down,
}

impl SiteKind {
    /// All kinds, in order.
    pub const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Router, Self::GateUp, Self::Down];

    /// Those that read the same rows: a card has their matrices below each other as one, in this order.
    pub const ATTENTION_INPUTS: [Self; 3] = [Self::Query, Self::Key, Self::Value];

    /// The name users write in a target list: the module's name in the published layout.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "q_proj",
            Self::Key => "k_proj",
            Self::Value => "v_proj",
            Self::Output => "o_proj",
            Self::Router => "router",
            Self::GateUp => "gate_up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The kind with this [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether there is one matrix for each expert.
    pub fn is_expert(self) -> bool {
        matches!(self, Self::GateUp | Self::Down)
    }

    /// Whether it is one of attention's.
    pub fn is_attention(self) -> bool {
        matches!(self, Self::Query | Self::Key | Self::Value | Self::Output)
    }

    /// Whether there are kernels that read a packed matrix here; a router is small and stays plain.
    pub fn may_be_packed(self) -> bool {
        self != Self::Router
    }
}

/// A value for each kind of site.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerSite<T>([T; SiteKind::ALL.len()]);

impl<T> PerSite<T> {
    /// What `f` says of each, asked in order.
    pub fn from_fn(mut f: impl FnMut(SiteKind) -> T) -> Self {
        Self(SiteKind::ALL.map(&mut f))
    }

    /// What `f` makes of each, asked in order.
    pub fn map<U>(&self, mut f: impl FnMut(&T) -> U) -> PerSite<U> {
        PerSite(self.0.each_ref().map(&mut f))
    }

    /// Each with its kind, in order.
    pub fn iter(&self) -> impl Iterator<Item = (SiteKind, &T)> {
        SiteKind::ALL.into_iter().zip(&self.0)
    }
}

impl<T> Index<SiteKind> for PerSite<T> {
    type Output = T;

    fn index(&self, kind: SiteKind) -> &T {
        &self.0[kind as usize]
    }
}

impl<T> IndexMut<SiteKind> for PerSite<T> {
    fn index_mut(&mut self, kind: SiteKind) -> &mut T {
        &mut self.0[kind as usize]
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
            input: columns(SiteKind::ATTENTION_INPUTS.map(|kind| ranks[kind]).iter().sum()),
            output: columns(ranks[SiteKind::Output]),
            router: ranks[SiteKind::Router],
            gate_up: ranks[SiteKind::GateUp],
            down: ranks[SiteKind::Down],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_the_kind_it_was_made_for() {
        let names = PerSite::from_fn(SiteKind::name);
        for (kind, name) in names.iter() {
            assert_eq!((*name, names[kind]), (kind.name(), kind.name()));
            assert_eq!(SiteKind::from_name(name), Some(kind));
        }
        let mut lengths = names.map(|name| name.len());
        lengths[SiteKind::Down] = 0;
        assert_eq!((lengths[SiteKind::Down], lengths[SiteKind::Router]), (0, 6));
    }
}
