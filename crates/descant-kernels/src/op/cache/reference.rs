//! Row writes in burn operations.

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

/// See [`crate::write_rows`].
pub fn write_rows(cache: Tensor<2>, rows: &Tensor<1, Int>, values: Tensor<2>) -> Tensor<2> {
    let old = cache.clone().select(0, rows.clone());
    cache.select_assign(0, rows.clone(), values - old, IndexingUpdateOp::Add)
}
