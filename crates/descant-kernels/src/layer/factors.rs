//! The packed factors of low-rank paths: which part of which pair lies where. Training and the steps of generation read
//! other forms of the same factors, so both ask here.

use crate::memory::LayerSizes;
use crate::site::{DensePath, PerSite};

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

/// The factors of a dense path with so many columns: A `[columns, inputs]` at the first address, and s B at the second:
/// `[columns, outputs]` where `b` is stored transposed, else `[outputs, columns]`.
pub(crate) fn dense(
    path: DensePath,
    sizes: &LayerSizes,
    pairs: &PerSite<Option<Pair>>,
    columns: usize,
    to: [u64; 2],
    stored: Stored,
) -> [Whole; 2] {
    let [outputs, inputs] = sizes.product(path);
    let whole = |address, shape, stored| Whole { address, shape, stored, parts: Vec::new() };
    let turned = |at: [usize; 2]| if stored == Stored::Transposed { [at[1], at[0]] } else { at };
    let mut a = whole(to[0], [columns, inputs], Stored::Plain);
    let mut b = whole(to[1], turned([outputs, columns]), stored);
    let mut column = 0;
    for kind in path.sites() {
        let Some(Pair { a: of_a, b: of_b, rank, scaling }) = pairs[kind] else { continue };
        let [rows, _] = sizes.matrix(kind);
        a.parts.push(Part { address: of_a, at: [column, 0], shape: [rank, inputs], factor: 1.0 });
        let (at, shape) = (turned([sizes.first_row(kind), column]), turned([rows, rank]));
        b.parts.push(Part { address: of_b, at, shape, factor: scaling });
        column += rank;
    }
    [a, b]
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
    use crate::site::SiteKind;

    #[test]
    fn parts_lie_beside_each_other_and_at_the_rows_of_their_sites() {
        let sizes = LayerSizes::OF_20B;
        let pair = |kind: SiteKind| {
            let at = 100 * kind as u64;
            let has = kind != SiteKind::Key && kind != SiteKind::Output;
            has.then_some(Pair { a: at + 1, b: at + 2, rank: 8, scaling: 2.0 })
        };
        let pairs = PerSite::from_fn(pair);
        for stored in [Stored::Plain, Stored::Transposed] {
            let turned = |[row, column]: [usize; 2]| {
                if stored == Stored::Transposed { [column, row] } else { [row, column] }
            };
            let [a, b] = dense(DensePath::Input, &sizes, &pairs, 16, [7, 8], stored);
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
            let [a, b] = dense(DensePath::Output, &sizes, &pairs, 0, [7, 8], stored);
            assert!(a.parts.is_empty() && b.parts.is_empty());
        }
    }
}
