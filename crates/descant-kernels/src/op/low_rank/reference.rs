//! The low-rank product in burn operations, a matrix at a time.

use burn::tensor::Tensor;

use crate::op::linear::Groups;
use crate::op::linear::reference::rows_of_groups;

/// See [`crate::low_rank()`].
pub fn low_rank(x: Tensor<2>, a: Tensor<3>, b: Tensor<3>, scaling: f32, groups: &Groups) -> Tensor<2> {
    // One type in a product: burn's CUDA backend does not look, and reads one as the other.
    let (a, b) = (a.cast(x.dtype()), b.cast(x.dtype()));
    let parts = rows_of_groups(groups, x.dims()[0])
        .into_iter()
        .enumerate()
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(e, rows)| {
            let a = a.clone().narrow(0, e, 1).squeeze_dim::<2>(0);
            let b = b.clone().narrow(0, e, 1).squeeze_dim::<2>(0);
            x.clone().slice([rows]).matmul(a.transpose()).matmul(b.transpose()) * scaling
        })
        .collect();
    Tensor::cat(parts, 0)
}
