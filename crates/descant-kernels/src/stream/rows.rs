//! Rows of a table on the host, gathered by the card, or by the host where the card does not see the table.

use std::sync::Arc;

use burn::backend::TensorMetadata as _;
use burn::tensor::{DType, Int, Tensor, TensorData};
use rayon::prelude::*;

use crate::cuda::{CudaError, HostStore, contiguous, empty, gpu_of, handles, primitive, tensor};
use crate::op::select::cuda::gather as gather_rows;

/// `table[indices]`, bf16 rows of `width`.
pub(super) fn gather(table: &Arc<HostStore>, indices: &Tensor<1, Int>, width: usize) -> Tensor<2> {
    let indices = contiguous(primitive(indices.clone()).expect("indices lie where the model lies"));
    let count = indices.shape().num_elements();
    let out = empty([count, width], DType::BF16, &indices.device);
    let table = Arc::clone(table);
    gpu_of(&out).enqueue(handles([&indices, &out]), move |run, p| {
        let address =
            table.address().ok_or_else(|| CudaError::backend("a table that is not pinned has no address"))?;
        gather_rows(run, address, p[0], p[1], [count, width])
    });
    tensor(out)
}

/// The same, where the card does not see the table: `table` are its bytes.
pub(super) fn gather_by_host(table: &[u8], indices: &Tensor<1, Int>, width: usize) -> Tensor<2> {
    let row = width * DType::BF16.size();
    let device = indices.device();
    let indices = indices.to_data();
    let indices: Vec<i64> = indices.iter::<i64>().collect();
    let mut rows = vec![0; indices.len() * row];
    rows.par_chunks_mut(row).zip(&indices).for_each(|(to, index)| {
        to.copy_from_slice(&table[*index as usize * row..][..row]);
    });
    let data = TensorData::from_bytes_vec(rows, [indices.len(), width], DType::BF16);
    Tensor::from_data(data, (&device, DType::BF16))
}
