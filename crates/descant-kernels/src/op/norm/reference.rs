//! RMSNorm in burn operations.

use burn::tensor::Tensor;

/// See [`crate::rms_norm`].
pub fn rms_norm(x: Tensor<2>, weight: &Tensor<1>, epsilon: f64) -> Tensor<2> {
    let mean_square = x.clone().powi_scalar(2).mean_dim(1);
    x * (mean_square + epsilon).sqrt().recip() * weight.clone().unsqueeze()
}
