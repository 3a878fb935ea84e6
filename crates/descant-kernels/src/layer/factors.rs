//! The packed factors of low-rank paths: which part of which pair lies where. Training and the steps of generation read
//! other forms of the same factors, so both ask here.

use crate::memory::LayerSizes;
use crate::site::{DensePath, PerSite, SiteKind};

/// A pair's addresses, f32.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) rank: usize,
    pub(crate) scaling: f32,
}

/// An f32 matrix of `shape`, and its row and column in a larger one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) address: u64,
    pub(crate) at: [usize; 2],
    pub(crate) shape: [usize; 2],
    pub(crate) factor: f32,
}

/// How a part is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// As it comes to lie.
    Plain,
    /// As the transpose of that.
    Transposed,
}

/// A dense matrix of `shape` made of parts.
#[derive(Debug, Clone)]
pub(crate) struct Whole {
    pub(crate) address: u64,
    pub(crate) shape: [usize; 2],
    /// How all parts are.
    pub(crate) stored: Stored,
    pub(crate) parts: Vec<Part>,
}

/// A factor of an expert pair: a matrix of `shape` for each expert.
#[cfg(feature = "cuda")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpertFactor {
    pub(crate) address: u64,
    pub(crate) shape: [usize; 2],
    pub(crate) stored: Stored,
    pub(crate) factor: f32,
}

/// Where the columns of a dense path's pairs lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns {
    /// Lines of A.
    pub(crate) all: usize,
    /// Columns of B.
    pub(crate) of_b: usize,
    /// The first line of each site's A, and its first column in B.
    first: PerSite<[usize; 2]>,
}

/// Columns that the kernels of a step take at a time.
#[cfg(feature = "cuda")]
const OF_STEP: usize = 8;

impl Columns {
    /// Behind each other in both, `all` with what pads them.
    pub(crate) fn together(path: DensePath, ranks: &PerSite<usize>, all: usize) -> Self {
        let first = Self::behind(path, |kind| ranks[kind]).map(|first| [*first; 2]);
        Self { all, of_b: all, first }
    }

    /// As a step of generation has them: by eights, and in B the columns of a row's own site alone.
    #[cfg(feature = "cuda")]
    pub(crate) fn apart(path: DensePath, ranks: &PerSite<usize>) -> Self {
        let padded = |kind: SiteKind| ranks[kind].next_multiple_of(OF_STEP);
        Self {
            all: path.sites().map(padded).sum(),
            of_b: path.sites().map(padded).max().unwrap_or(0),
            first: Self::behind(path, padded).map(|first| [*first, 0]),
        }
    }

    fn behind(path: DensePath, ranks: impl Fn(SiteKind) -> usize) -> PerSite<usize> {
        let (mut first, mut next) = (PerSite::default(), 0);
        for kind in path.sites() {
            first[kind] = next;
            next += ranks(kind);
        }
        first
    }

    /// The first line of a site's A.
    #[cfg(feature = "cuda")]
    pub(crate) fn first(&self, kind: SiteKind) -> usize {
        self.first[kind][0]
    }
}

/// The factors of a dense path: A `[columns, inputs]` at the first address, and s B at the second: `[columns, outputs]`
/// where `b` is stored transposed, else `[outputs, columns]`.
pub(crate) fn dense(
    path: DensePath,
    sizes: &LayerSizes,
    pairs: &PerSite<Option<Pair>>,
    columns: &Columns,
    to: [u64; 2],
    stored: Stored,
) -> [Whole; 2] {
    let [outputs, inputs] = sizes.product(path);
    let whole = |address, shape, stored| Whole { address, shape, stored, parts: Vec::new() };
    let turned = |at: [usize; 2]| if stored == Stored::Transposed { [at[1], at[0]] } else { at };
    let mut a = whole(to[0], [columns.all, inputs], Stored::Plain);
    let mut b = whole(to[1], turned([outputs, columns.of_b]), stored);
    for kind in path.sites() {
        let Some(Pair { a: of_a, b: of_b, rank, scaling }) = pairs[kind] else { continue };
        let ([rows, _], [line, column]) = (sizes.matrix(kind), columns.first[kind]);
        a.parts.push(Part { address: of_a, at: [line, 0], shape: [rank, inputs], factor: 1.0 });
        let (at, shape) = (turned([sizes.first_row(kind), column]), turned([rows, rank]));
        b.parts.push(Part { address: of_b, at, shape, factor: scaling });
    }
    [a, b]
}

/// The ranks of pairs, 0 for none.
pub(crate) fn ranks(pairs: &PerSite<Option<Pair>>) -> PerSite<usize> {
    pairs.map(|pair| pair.map_or(0, |pair| pair.rank))
}

#[cfg(feature = "cuda")]
impl Pair {
    /// A of an expert pair, `[rank, inputs]`, or its transpose.
    pub(crate) fn expert_a(&self, [_, inputs]: [usize; 2], stored: Stored) -> ExpertFactor {
        let shape = if stored == Stored::Transposed { [inputs, self.rank] } else { [self.rank, inputs] };
        ExpertFactor { address: self.a, shape, stored, factor: 1.0 }
    }

    /// s B of an expert pair, `[outputs, rank]`.
    pub(crate) fn expert_b(&self, [outputs, _]: [usize; 2]) -> ExpertFactor {
        let shape = [outputs, self.rank];
        ExpertFactor { address: self.b, shape, stored: Stored::Plain, factor: self.scaling }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_beside_each_other_and_at_the_rows_of_their_sites() {
        let sizes = LayerSizes::OF_20B;
        let pair = |kind: SiteKind| {
            let at = 100 * kind as u64;
            let has = kind != SiteKind::Key && kind != SiteKind::Output;
            has.then_some(Pair { a: at + 1, b: at + 2, rank: 8, scaling: 2.0 })
        };
        let pairs = PerSite::from_fn(pair);
        let of = |path, all| Columns::together(path, &ranks(&pairs), all);
        for stored in [Stored::Plain, Stored::Transposed] {
            let turned = |[row, column]: [usize; 2]| {
                if stored == Stored::Transposed { [column, row] } else { [row, column] }
            };
            let [a, b] = dense(DensePath::Input, &sizes, &pairs, &of(DensePath::Input, 16), [7, 8], stored);
            assert_eq!((a.address, a.shape, a.stored), (7, [16, sizes.hidden], Stored::Plain));
            assert_eq!((b.address, b.shape, b.stored), (8, turned([sizes.qkv(), 16]), stored));
            let [query, value] = a.parts[..] else { panic!("two pairs, {} parts", a.parts.len()) };
            assert_eq!((query.address, query.at, query.shape), (1, [0, 0], [8, sizes.hidden]));
            assert_eq!((value.address, value.at, value.factor), (201, [8, 0], 1.0));
            let [query, value] = b.parts[..] else { panic!("two pairs, {} parts", b.parts.len()) };
            assert_eq!((query.address, query.at, query.shape), (2, turned([0, 0]), turned([sizes.query, 8])));
            let row = sizes.query + sizes.key_value;
            assert_eq!((value.address, value.at, value.factor), (202, turned([row, 8]), 2.0));
            assert_eq!(value.shape, turned([sizes.key_value, 8]));
            let [a, b] = dense(DensePath::Output, &sizes, &pairs, &of(DensePath::Output, 0), [7, 8], stored);
            assert!(a.parts.is_empty() && b.parts.is_empty());
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn in_a_step_columns_are_by_eights_and_rows_of_b_have_their_own() {
        let ranks = PerSite::from_fn(|kind| match kind {
            SiteKind::Query => 3,
            SiteKind::Value => 9,
            SiteKind::Output => 8,
            _ => 0,
        });
        let input = Columns::apart(DensePath::Input, &ranks);
        assert_eq!((input.all, input.of_b), (24, 16));
        let first = [SiteKind::Query, SiteKind::Key, SiteKind::Value].map(|kind| input.first(kind));
        assert_eq!((first, input.first[SiteKind::Value]), ([0, 8, 8], [8, 0]));
        let output = Columns::apart(DensePath::Output, &ranks);
        assert_eq!((output.all, output.of_b), (8, 8));
        let none = Columns::apart(DensePath::Input, &PerSite::default());
        assert_eq!((none.all, none.of_b), (0, 0));
    }
}
