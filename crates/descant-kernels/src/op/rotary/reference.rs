//! Rotary embedding in burn operations.

use burn::tensor::Tensor;

/// See [`crate::rotary()`].
pub fn rotary(x: Tensor<3>, cos: &Tensor<2>, sin: &Tensor<2>) -> Tensor<3> {
    let [_, _, dim] = x.dims();
    let (first, second) = (x.clone().narrow(2, 0, dim / 2), x.narrow(2, dim / 2, dim / 2));
    let (cos, sin) = (cos.clone().unsqueeze_dim(1), sin.clone().unsqueeze_dim(1));
    Tensor::cat(
        vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos + first * sin],
        2,
    )
}
