//! A matrix with its axes changed: checkpoints store some weights by input, others by output.

/// `[rows, columns]` with its axes changed; in tiles, since one of the two is always far apart in memory.
///
/// # Panics
/// `values` is not of that size.
pub fn transposed<T: Copy + Default>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    const TILE: usize = 32;
    assert_eq!(values.len(), rows * columns, "a matrix of this size");
    let mut out = vec![T::default(); values.len()];
    for row in (0..rows).step_by(TILE) {
        for column in (0..columns).step_by(TILE) {
            for r in row..rows.min(row + TILE) {
                for c in column..columns.min(column + TILE) {
                    out[c * rows + r] = values[r * columns + c];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_where_its_row_and_column_say() {
        for (rows, columns) in [(1, 1), (2, 3), (32, 33), (65, 40)] {
            let values: Vec<usize> = (0..rows * columns).collect();
            let turned = transposed(&values, rows, columns);
            for at in values {
                assert_eq!(turned[at % columns * rows + at / columns], at);
            }
            assert_eq!(transposed(&turned, columns, rows), (0..rows * columns).collect::<Vec<_>>());
        }
    }
}
