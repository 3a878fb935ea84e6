//! Rows by index in burn operations.

use burn::tensor::{DType, Tensor, TensorData};

/// See [`crate::select_rows`].
pub fn select_rows(x: Tensor<2>, rows: &[usize]) -> Tensor<2> {
    let indices: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let indices = TensorData::new(indices, [rows.len()]);
    let device = x.device().inner();
    x.select(0, Tensor::from_data(indices, (&device, DType::I32)))
}
