//! Order of an expert's factors: as PEFT stores them, and by expert as we keep them.
//!
//! A needs no change: PEFT's row `e*r + j` is our `[e, j]`. B does: PEFT's column `j*E + e` of `[out, r*E]` is our
//! `[e, out, j]`. With one matrix (dense weights, E = 1) both are the same.

use descant_model::SiteDims;

/// B as stored, `[out, rank * n]`, to `[n, out, rank]`.
pub(super) fn b_by_expert(stored: &[f32], dims: SiteDims, rank: usize) -> Vec<f32> {
    let mut ours = vec![0.0; stored.len()];
    for (stored_at, ours_at) in b_places(dims, rank) {
        ours[ours_at] = stored[stored_at];
    }
    ours
}

/// B by expert, `[n, out, rank]`, to how it is stored, `[out, rank * n]`.
pub(super) fn b_as_stored(ours: &[f32], dims: SiteDims, rank: usize) -> Vec<f32> {
    let mut stored = vec![0.0; ours.len()];
    for (stored_at, ours_at) in b_places(dims, rank) {
        stored[stored_at] = ours[ours_at];
    }
    stored
}

/// `[n, rows, columns]` to `[n, columns, rows]`.
pub(super) fn axes_changed(values: &[f32], n: usize, rows: usize, columns: usize) -> Vec<f32> {
    let at = |matrix: usize, row: usize, column: usize| values[(matrix * rows + row) * columns + column];
    (0..n).flat_map(|m| (0..columns).flat_map(move |c| (0..rows).map(move |r| at(m, r, c)))).collect()
}

/// Every element's place as stored and in our order.
fn b_places(dims: SiteDims, rank: usize) -> impl Iterator<Item = (usize, usize)> {
    let SiteDims { d_out, n_matrices: n, .. } = dims;
    (0..d_out).flat_map(move |o| {
        (0..rank)
            .flat_map(move |j| (0..n).map(move |e| (o * rank * n + j * n + e, (e * d_out + o) * rank + j)))
    })
}
