//! What a person should see of a data set before training on it, as values.
//!
//! Which tokens are trained, and how long the rows are; `languages` says what the reasoning is in.
//! Nothing is printed here and nothing is coloured: the command line does that, with or without a terminal.

use crate::error::Result;
use crate::examples::mask::{LossMask, TokenClass};
use crate::tokens::tokenizer::{TextEncoder, Tokenizer};
use serde::Serialize;

/// Neighbouring tokens of one class that are all trained or all not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What they are part of.
    pub class: TokenClass,
    /// Whether they are trained.
    pub trained: bool,
    /// Index of the first.
    pub from: usize,
    /// One past the last.
    pub to: usize,
    /// Their text, special tokens included.
    pub text: String,
}

/// The runs of a row, in order. Their texts joined are the row's text.
///
/// # Errors
/// When the tokenizer fails.
pub fn runs(tokenizer: &Tokenizer, ids: &[u32], mask: &LossMask) -> Result<Vec<Run>> {
    let kinds: Vec<(TokenClass, bool)> = mask.classes.iter().copied().zip(mask.bits()).collect();
    let mut runs: Vec<Run> = Vec::new();
    let mut from = 0;
    for kind in kinds.chunk_by(|a, b| a == b) {
        let to = (from + kind.len()).min(ids.len());
        let text = tokenizer.decode(&ids[from..to])?;
        runs.push(Run { class: kind[0].0, trained: kind[0].1, from, to, text });
        from = to;
    }
    Ok(runs)
}

/// How long rows are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// The shortest.
    pub min: usize,
    /// Half of the rows are at most this long.
    pub median: usize,
    /// 95 of 100 rows are at most this long.
    pub p95: usize,
    /// The longest.
    pub max: usize,
    /// Buckets of equal width from 0 on: the first length past the bucket, and how many rows are in it.
    pub buckets: Vec<(usize, u64)>,
}

impl Lengths {
    /// Summarises lengths in at most `buckets` buckets; `None` for no rows.
    pub fn of(lengths: impl IntoIterator<Item = usize>, buckets: usize) -> Option<Self> {
        let mut sorted: Vec<usize> = lengths.into_iter().collect();
        sorted.sort_unstable();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        // The row at which a share of all rows is reached.
        let reached = |share: usize| sorted[(sorted.len() * share).div_ceil(100).max(1) - 1];
        let width = round_width((max + 1).div_ceil(buckets.max(1)));
        let mut counts: Vec<(usize, u64)> = (1..=max / width + 1).map(|bucket| (bucket * width, 0)).collect();
        for length in &sorted {
            counts[length / width].1 += 1;
        }
        Some(Self { min, median: reached(50), p95: reached(95), max, buckets: counts })
    }
}

/// The next width that reads well: 1, 2 or 5 times a power of ten.
fn round_width(width: usize) -> usize {
    let mut unit = 1;
    loop {
        for factor in [1, 2, 5] {
            if unit * factor >= width {
                return unit * factor;
            }
        }
        unit *= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_summarised_in_buckets_that_read_well() {
        let lengths = Lengths::of([135, 235, 150, 150, 199], 5).unwrap();
        assert_eq!((lengths.min, lengths.median, lengths.p95, lengths.max), (135, 150, 235, 235));
        assert_eq!(lengths.buckets, [(50, 0), (100, 0), (150, 1), (200, 3), (250, 1)]);
        assert_eq!(Lengths::of([], 5), None);
        assert_eq!(Lengths::of([0], 5).unwrap().buckets, [(1, 1)]);
        let many = Lengths::of(1..=100, 10).unwrap();
        assert_eq!((many.median, many.p95), (50, 95));
        assert_eq!(many.buckets.iter().map(|(_, count)| count).sum::<u64>(), 100);
    }
}
