//! The work lists of the CUDA kernels: tiles of queries and of keys, the largest work first.
//!
//! An entry is 8 numbers, `struct Tile` of `attention.cuh`: where the segment's queries and keys lie, the first query or
//! key of the tile, into how many a tile of keys was split, and the segment's number. Order decides only who works when,
//! never a result: every tile is computed by itself. How finely tiles of keys are split decides the last bits of their
//! sums, so sizes alone decide it: those of the batch, not the card's.

use super::segments::{Segment, Segments};

/// Numbers of an entry.
pub(crate) const ENTRY: usize = 8;

/// Tiles of `positions` queries each.
pub(crate) fn of_queries(segments: &Segments, positions: usize) -> Vec<i32> {
    // The later a query, the more keys it sees.
    list(
        segments,
        |s| (positions, s.query_len, 1),
        |s, first| s.first_position() + (first + positions).min(s.query_len),
    )
}

/// How tiles of keys are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Split {
    /// Not at all.
    Whole,
    /// As far as the largest tile of a head is no more than a fair part of the head's work, for so many blocks.
    Shared { blocks: usize },
    /// Into so many, a power of two.
    Into(usize),
    /// Strips in place of tiles, for so many blocks; see `strips.rs`.
    Strips { blocks: usize },
}

/// Into how many a tile is split at most.
pub(crate) const MOST_SPLIT: usize = 4;

impl Split {
    /// Into how many tiles of a segment are split, where a block's fair part of all is so many pairs of a row and a key.
    fn of(self, segment: &Segment, keys: usize, part: usize) -> usize {
        match self {
            Self::Whole | Self::Strips { .. } => 1,
            Self::Into(split) => split,
            // A quarter more is not worth it: parts cost more copies and meetings for the same products.
            Self::Shared { .. } => [1, 2]
                .into_iter()
                .find(|split| segment.query_len * keys / split <= part + part / 4)
                .unwrap_or(MOST_SPLIT),
        }
    }

    /// A block's fair part of all segments' pairs.
    fn part(self, segments: &Segments) -> usize {
        match self {
            Self::Shared { blocks } => (visible(segments, None) / blocks as f64) as usize,
            Self::Whole | Self::Into(_) | Self::Strips { .. } => 0,
        }
    }
}

/// Tiles of `keys` keys each, or of fewer where they are split.
pub(crate) fn of_keys(segments: &Segments, keys: usize, split: Split) -> Vec<i32> {
    let part = split.part(segments);
    let of = |s: &Segment| split.of(s, keys, part);
    // The earlier a key, the more queries see it.
    list(
        segments,
        |s| (keys / of(s), s.key_len, of(s)),
        |s, first| (s.query_len - first.saturating_sub(s.first_position()).min(s.query_len)) / of(s),
    )
}

/// Entries that the lists need at most, for any number of positions from `positions` on.
pub(crate) fn at_most(segments: &Segments, positions: usize, keys: usize) -> usize {
    segments.as_slice().iter().map(|s| s.query_len.div_ceil(positions) + s.key_len.div_ceil(keys)).sum()
}

/// `shape`: rows of a tile, of all, and the split, or in strips their positions. `work`: of the tile that begins at a row.
pub(super) fn list(
    segments: &Segments,
    shape: impl Fn(&Segment) -> (usize, usize, usize),
    work: impl Fn(&Segment, usize) -> usize,
) -> Vec<i32> {
    let mut tiles: Vec<(usize, [usize; ENTRY])> = Vec::new();
    for (number, s) in segments.as_slice().iter().enumerate() {
        let (step, len, split) = shape(s);
        for first in (0..len).step_by(step) {
            let entry = [s.query_start, s.query_len, s.key_start, s.key_len, first, split, number, 0];
            tiles.push((work(s, first), entry));
        }
    }
    // Stable: equal work stays in the order of the rows.
    tiles.sort_by_key(|(work, _)| std::cmp::Reverse(*work));
    tiles.iter().flat_map(|(_, entry)| entry.map(|n| n as i32)).collect()
}

/// Pairs of a query and a key that it sees.
pub(crate) fn visible(segments: &Segments, window: Option<usize>) -> f64 {
    let triangle = |n: usize| n as f64 * (n as f64 + 1.0) / 2.0;
    let seen = |s: &Segment| {
        let (first, end) = (s.first_position(), s.key_len);
        let all = triangle(end) - triangle(first);
        let hidden = |n: usize, window: usize| triangle(n.saturating_sub(window));
        window.map_or(all, |w| all - (hidden(end, w) - hidden(first, w)))
    };
    segments.as_slice().iter().map(seen).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Segments {
        let segment = |query_start, query_len, key_start, key_len| Segment {
            query_start,
            query_len,
            key_start,
            key_len,
        };
        Segments::new([
            segment(0, 50, 0, 50),
            segment(50, 1, 50, 700),
            segment(51, 129, 750, 129),
            segment(180, 24, 879, 100),
        ])
    }

    #[test]
    fn tiles_cover_every_query_and_key_once() {
        let segments = some();
        for step in [1, 16, 24, 128] {
            let keys = of_keys(&segments, step, Split::Whole);
            for (tiles, keys) in [(of_queries(&segments, step), false), (keys, true)] {
                let mut covered = vec![0; 1000];
                for tile in tiles.chunks_exact(ENTRY) {
                    let [query_start, query_len, key_start, key_len, first] =
                        std::array::from_fn(|i| tile[i] as usize);
                    let (start, len) = if keys { (key_start, key_len) } else { (query_start, query_len) };
                    assert!(first < len && first % step == 0);
                    for row in first..len.min(first + step) {
                        covered[start + row] += 1;
                    }
                }
                let rows = if keys { 979 } else { 204 };
                assert!(covered[..rows].iter().all(|n| *n == 1), "step {step}, keys {keys}");
                assert!(covered[rows..].iter().all(|n| *n == 0));
            }
        }
    }

    #[test]
    fn the_largest_work_comes_first() {
        let segments = some();
        let queries = of_queries(&segments, 16);
        // The query behind 699 keys, then the last tile of the sequence of 129.
        assert_eq!(queries[..5], [50, 1, 50, 700, 0]);
        assert_eq!(queries[ENTRY..ENTRY + 5], [51, 129, 750, 129, 128]);
        let keys = of_keys(&segments, 128, Split::Whole);
        assert_eq!(keys[..5], [51, 129, 750, 129, 0]);
        let n = (queries.len() + keys.len()) / ENTRY;
        assert_eq!(at_most(&segments, 16, 128), n);
        assert!(at_most(&segments, 2, 128) > n);
    }

    #[test]
    fn long_tiles_are_split_where_there_are_few() {
        for (lengths, splits) in [
            (&[1024][..], &[4][..]),
            (&[4096], &[2]),
            (&[4096; 4], &[1; 4]),
            (&[1024; 16], &[1; 16]),
            (&[8192], &[1]),
            (&[5000, 70], &[2, 1]),
        ] {
            let segments = Segments::from_lengths(lengths);
            let tiles = of_keys(&segments, 128, Split::Shared { blocks: 33 });
            let mut covered = vec![0; lengths.iter().sum()];
            for tile in tiles.chunks_exact(ENTRY) {
                let [start, len, key_start, key_len, first, split] =
                    std::array::from_fn(|i| tile[i] as usize);
                let at = segments.as_slice().iter().position(|s| s.query_start == start).unwrap();
                assert_eq!((len, split), (lengths[at], splits[at]), "{lengths:?}");
                assert_eq!(first % (128 / split), 0);
                covered[key_start + first..key_start + key_len.min(first + 128 / split)]
                    .iter_mut()
                    .for_each(|n| *n += 1);
            }
            assert!(covered.iter().all(|n| *n == 1));
            assert!(tiles.len() / ENTRY <= at_most(&segments, usize::MAX, 128 / MOST_SPLIT));
        }
        let all = |split| of_keys(&Segments::from_lengths(&[300, 5000]), 128, split);
        assert!(all(Split::Whole).chunks_exact(ENTRY).all(|tile| tile[5] == 1));
        assert!(all(Split::Into(2)).chunks_exact(ENTRY).all(|tile| tile[5] == 2));
        assert_eq!(all(Split::Strips { blocks: 3 }), all(Split::Whole), "strips are another list");
    }

    #[test]
    fn visible_counts_what_a_mask_shows() {
        let segments = some();
        for window in [None, Some(1), Some(7), Some(64), Some(5000)] {
            let mut count = 0;
            for s in segments.as_slice() {
                for position in s.first_position()..s.key_len {
                    count += (position + 1).min(window.unwrap_or(usize::MAX));
                }
            }
            let difference = visible(&segments, window) - f64::from(count as u32);
            assert!(difference.abs() < 0.5, "window {window:?}: {difference}");
        }
    }
}
