//! Rows by index. burn's backward of its own `select` goes over the rows one after the other, because two may be the
//! same; here none is taken twice, so that each row of the gradient is written once, by whoever is free.

#[cfg(feature = "cuda")]
mod choice;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(feature = "cuda")]
mod node;
pub(crate) mod reference;

use burn::tensor::Tensor;

/// The rows of these indices. Its gradient is zero in all others.
///
/// # Shapes
/// `x` `[n, features]`; the result `[rows.len(), features]`. On a card there is a form for rows that rise.
///
/// # Panics
/// If an index is not below `n`.
pub fn select_rows(x: Tensor<2>, rows: &[usize]) -> Tensor<2> {
    let [n, _] = x.dims();
    assert!(rows.iter().all(|&row| row < n), "a row beyond the last");
    if rows.iter().copied().eq(0..n) {
        return x;
    }
    #[cfg(feature = "cuda")]
    if crate::is_cuda(&x.device()) && cuda::fits(&x) && rows.is_sorted_by(|a, b| a < b) {
        return node::select_rows(x, rows);
    }
    reference::select_rows(x, rows)
}

/// The same of a table that is in no graph; rows may come in any order and more than once.
///
/// # Shapes
/// `table` `[n, features]`; the result `[rows.len(), features]`
///
/// # Panics
/// If an index is not below `n`.
pub fn gather_rows(table: &Tensor<2>, rows: &[usize]) -> Tensor<2> {
    let [n, _] = table.dims();
    assert!(rows.iter().all(|&row| row < n), "a row beyond the last");
    #[cfg(feature = "cuda")]
    if crate::is_cuda(&table.device()) && cuda::fits(table) {
        return cuda::gather_rows(table, rows);
    }
    reference::select_rows(table.clone(), rows)
}
