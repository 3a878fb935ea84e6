//! How many rows go through the vocabulary at once on a card: from sizes alone, with no card.

/// More rows than this make a product no faster.
const MOST_ROWS: usize = 4096;
/// Rows come in multiples of this, as products like them.
const ROWS: usize = 128;

/// Rows whose bf16 logits are made at once, where these may take so many bytes.
pub(crate) fn rows_at_once(n_rows: usize, vocabulary: usize, bytes: usize) -> usize {
    let fit = bytes / (2 * vocabulary.max(1)) / ROWS * ROWS;
    fit.clamp(ROWS, n_rows.next_multiple_of(ROWS).min(MOST_ROWS)).min(n_rows.max(1))
}

/// Least rows that are compared at once.
const PAIRS: usize = 64;
/// More than this make that no faster.
const MOST_PAIRS: usize = 512;

/// Rows that are compared with others at once, where the f32 logits of both may take so many bytes.
pub(crate) fn pairs_at_once(n_rows: usize, vocabulary: usize, bytes: usize) -> usize {
    let fit = bytes / (2 * size_of::<f32>() * vocabulary.max(1)) / PAIRS * PAIRS;
    fit.clamp(PAIRS, MOST_PAIRS).min(n_rows.max(1))
}

/// So many rows in pieces of `most` at most, of nearly one length: the first row of each and how many. A short last piece
/// would have a length of its own in every batch, for which an algorithm is looked for.
pub(crate) fn pieces(n_rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let blocks = n_rows.div_ceil(ROWS);
    let count = blocks.div_ceil(most.div_ceil(ROWS).max(1)).max(1);
    let (each, more) = (blocks / count, blocks % count);
    let first = move |piece: usize| ((piece * each + piece.min(more)) * ROWS).min(n_rows);
    (0..count).map(move |piece| (first(piece), first(piece + 1) - first(piece))).filter(|(_, n)| *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::loss::LOGITS;

    #[test]
    fn logits_stay_within_their_bytes_and_no_row_is_lost() {
        for (rows, vocabulary) in [(1, 201_088), (7, 96), (16_384, 201_088), (5000, 64), (129, 10_000_000)] {
            let most = rows_at_once(rows, vocabulary, LOGITS);
            assert!(most >= 1 && most <= rows);
            assert!(most <= ROWS || most * vocabulary * 2 <= LOGITS, "{most} rows of {vocabulary}");
        }
        assert_eq!(rows_at_once(16_384, 201_088, LOGITS), 640);
    }

    #[test]
    fn logits_of_two_stay_within_their_bytes() {
        for (rows, vocabulary) in [(1, 201_088), (7, 96), (2048, 201_088), (5000, 64), (129, 10_000_000)] {
            let most = pairs_at_once(rows, vocabulary, LOGITS);
            assert!(most >= 1 && most <= rows);
            assert!(most <= PAIRS || most * vocabulary * 8 <= LOGITS, "{most} rows of {vocabulary}");
        }
        assert_eq!(pairs_at_once(2048, 201_088, LOGITS), 128);
    }

    #[test]
    fn pieces_have_every_row_once_and_nearly_one_length() {
        for (rows, most) in [(0, 1), (1, 1), (100, 100), (640, 640), (641, 640), (4096, 1152), (16_384, 1152)]
        {
            let all: Vec<_> = pieces(rows, most).collect();
            let mut next = 0;
            for (first, n) in &all {
                assert!(*first == next && *n > 0 && *n <= most, "{rows} rows, {most} at once: {all:?}");
                next = first + n;
            }
            assert_eq!(next, rows);
            let [least, longest] =
                [all.iter().map(|piece| piece.1).min(), all.iter().map(|piece| piece.1).max()];
            assert!(longest.unwrap_or(0) - least.unwrap_or(0) < 2 * ROWS, "{all:?}");
        }
        assert_eq!(pieces(4096, 1152).map(|piece| piece.1).collect::<Vec<_>>(), [1024; 4]);
    }
}
