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
}
