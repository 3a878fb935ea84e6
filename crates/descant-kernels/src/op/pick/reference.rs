//! The definition of the greedy choice, on the host.

/// The place of the largest value, the first of equal ones. NaN is never larger.
pub fn best_token(row: &[f32]) -> usize {
    let mut best = 0;
    for (id, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = id;
        }
    }
    best
}
