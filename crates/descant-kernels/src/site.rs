//! The products of a layer that an adapter may change, a value for each of them, and the low-rank paths beside them.
//!
//! What is said of each product is asked for by its name and never by its place in a list. A new site is a new kind
//! here; whatever does not follow does not compile.

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

/// A low-rank path beside dense products; its columns are the ranks of all its pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DensePath {
    /// Beside query, key and value, which read the same rows.
    Input,
    /// Beside attention's output.
    Output,
}

impl DensePath {
    #[cfg(any(feature = "cuda", test))]
    pub(crate) const ALL: [Self; 2] = [Self::Input, Self::Output];

    /// The sites whose pairs share it, in order.
    pub(crate) fn sites(self) -> impl Iterator<Item = SiteKind> {
        SiteKind::ALL.into_iter().filter(move |kind| kind.path() == PathKind::Dense(self))
    }
}

/// A low-rank path beside a product of the experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpertPath {
    /// The first.
    GateUp,
    /// The second.
    Down,
}

impl ExpertPath {
    pub(crate) const ALL: [Self; 2] = [Self::GateUp, Self::Down];

    /// The site that it lies beside.
    pub(crate) fn site(self) -> SiteKind {
        match self {
            Self::GateUp => SiteKind::GateUp,
            Self::Down => SiteKind::Down,
        }
    }
}

/// The way that a site's pair takes through a layer on a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathKind {
    Dense(DensePath),
    /// None of its own: the pair is multiplied out and added to the weight.
    Router,
    Expert(ExpertPath),
}

impl SiteKind {
    /// The path of its pair.
    pub(crate) fn path(self) -> PathKind {
        match self {
            Self::Query | Self::Key | Self::Value => PathKind::Dense(DensePath::Input),
            Self::Output => PathKind::Dense(DensePath::Output),
            Self::Router => PathKind::Router,
            Self::GateUp => PathKind::Expert(ExpertPath::GateUp),
            Self::Down => PathKind::Expert(ExpertPath::Down),
        }
    }
}

/// Columns that low-rank paths of dense products are padded to a multiple of.
const DENSE_COLUMNS: usize = 16;

/// A value for each path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PerPath<T> {
    pub(crate) input: T,
    pub(crate) output: T,
    pub(crate) router: T,
    pub(crate) gate_up: T,
    pub(crate) down: T,
}

impl<T> PerPath<T> {
    /// What `f` says of each, asked in order.
    pub(crate) fn from_fn(mut f: impl FnMut(PathKind) -> T) -> Self {
        Self {
            input: f(PathKind::Dense(DensePath::Input)),
            output: f(PathKind::Dense(DensePath::Output)),
            router: f(PathKind::Router),
            gate_up: f(PathKind::Expert(ExpertPath::GateUp)),
            down: f(PathKind::Expert(ExpertPath::Down)),
        }
    }
}

impl<T> Index<PathKind> for PerPath<T> {
    type Output = T;

    fn index(&self, path: PathKind) -> &T {
        match path {
            PathKind::Dense(DensePath::Input) => &self.input,
            PathKind::Dense(DensePath::Output) => &self.output,
            PathKind::Router => &self.router,
            PathKind::Expert(ExpertPath::GateUp) => &self.gate_up,
            PathKind::Expert(ExpertPath::Down) => &self.down,
        }
    }
}

impl<T> Index<DensePath> for PerPath<T> {
    type Output = T;

    fn index(&self, path: DensePath) -> &T {
        &self[PathKind::Dense(path)]
    }
}

impl<T> Index<ExpertPath> for PerPath<T> {
    type Output = T;

    fn index(&self, path: ExpertPath) -> &T {
        &self[PathKind::Expert(path)]
    }
}

/// Which low-rank paths a layer has: columns of all ranks, padded, of a dense one, the rank of the others; 0 for none.
pub(crate) type Paths = PerPath<usize>;

impl Paths {
    /// The larger of both, everywhere.
    #[cfg(feature = "cuda")]
    pub(crate) fn union(&self, other: &Self) -> Self {
        Self::from_fn(|path| self[path].max(other[path]))
    }

    /// Of the ranks at the sites; 0 for none.
    pub(crate) fn new(ranks: &PerSite<usize>) -> Self {
        Self::from_fn(|path| {
            let columns: usize =
                ranks.iter().filter(|(kind, _)| kind.path() == path).map(|(_, rank)| rank).sum();
            if matches!(path, PathKind::Dense(_)) { columns.next_multiple_of(DENSE_COLUMNS) } else { columns }
        })
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

    #[test]
    fn every_site_is_on_one_path() {
        let ranks = PerSite::from_fn(|kind| 1 + kind as usize);
        let paths = Paths::new(&ranks);
        assert_eq!(paths, Paths { input: 16, output: 16, router: 5, gate_up: 6, down: 7 });
        for kind in SiteKind::ALL {
            match kind.path() {
                PathKind::Dense(path) => assert!(DensePath::ALL.contains(&path)),
                PathKind::Router => assert_eq!(kind, SiteKind::Router),
                PathKind::Expert(path) => assert!(ExpertPath::ALL.contains(&path) && path.site() == kind),
            }
        }
        assert_eq!(Paths::new(&PerSite::default()), Paths::default());
    }
}
