//! The products of a layer that an adapter may change, and a value for each of them.
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
