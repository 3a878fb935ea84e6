//! Which rows of the queries attend to which rows of the keys.

use std::sync::Arc;

/// One sequence: its last `query_len` positions ask, all its `key_len` positions answer.
///
/// In training both lengths are the sequence's. With a key-value cache the queries are the new tokens and the keys
/// start at the sequence's place in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First query row.
    pub query_start: usize,
    /// Query rows.
    pub query_len: usize,
    /// First key row.
    pub key_start: usize,
    /// Key rows; at least `query_len`.
    pub key_len: usize,
}

impl Segment {
    /// Position of this segment's first query, counted from its first key.
    pub fn first_position(&self) -> usize {
        self.key_len - self.query_len
    }
}

/// The sequences of a batch, in the order of their query rows. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments(Arc<[Segment]>);

impl Segments {
    /// Any segments; [`crate::attention()`] checks them against the tensors.
    pub fn new(segments: impl Into<Arc<[Segment]>>) -> Self {
        Self(segments.into())
    }

    /// Sequences of these lengths, one after the other, attending to themselves.
    pub fn from_lengths(lengths: &[usize]) -> Self {
        let mut start = 0;
        let segments: Vec<_> = lengths
            .iter()
            .map(|&len| {
                let segment = Segment { query_start: start, query_len: len, key_start: start, key_len: len };
                start += len;
                segment
            })
            .collect();
        Self::new(segments)
    }

    /// The segments.
    pub fn as_slice(&self) -> &[Segment] {
        &self.0
    }

    /// Query rows of all of them.
    pub fn tokens(&self) -> usize {
        self.as_slice().iter().map(|segment| segment.query_len).sum()
    }

    /// Query rows of the longest.
    pub fn longest(&self) -> usize {
        self.as_slice().iter().map(|segment| segment.query_len).max().unwrap_or(0)
    }

    /// Panics unless the segments cover `n_queries` rows in order and stay within `n_keys` rows.
    pub(crate) fn check(&self, n_queries: usize, n_keys: usize) {
        let mut next = 0;
        for s in self.as_slice() {
            assert_eq!(s.query_start, next, "segments must cover the query rows in order");
            assert!(s.query_len <= s.key_len, "a query without its own key");
            assert!(s.key_start + s.key_len <= n_keys, "a segment reaches beyond the key rows");
            next += s.query_len;
        }
        assert_eq!(next, n_queries, "segments must cover all query rows");
    }

    /// Whether each sequence has its own keys, in order and without gaps: what the backward relies on.
    pub(crate) fn keys_are_disjoint_and_ordered(&self, n_keys: usize) -> bool {
        let mut next = 0;
        let ordered = self.as_slice().iter().all(|s| {
            let fits = s.key_start == next;
            next += s.key_len;
            fits
        });
        ordered && next == n_keys
    }
}
