//! The product in burn operations, a matrix at a time; packed weights are decoded on the host.

use burn::tensor::{Int, Tensor, TensorData};
use descant_quant::nf4;

use super::weight::{BLOCK, FrozenWeight, Groups};

/// See [`crate::linear()`].
pub fn linear(x: Tensor<2>, weight: &FrozenWeight, bias: Option<&Tensor<2>>, groups: &Groups) -> Tensor<2> {
    let parts = rows_of_groups(groups, x.dims()[0])
        .into_iter()
        .enumerate()
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(e, rows)| {
            // One type in a product: burn's CUDA backend does not look, and reads one as the other.
            let x = x.clone().slice([rows]);
            let dtype = x.dtype();
            let y = x.matmul(transposed_matrix(weight, e).cast(dtype));
            match bias {
                Some(bias) => y + bias.clone().narrow(0, e, 1).cast(dtype),
                None => y,
            }
        })
        .collect();
    Tensor::cat(parts, 0)
}

/// The rows of each matrix, read from the device.
pub(crate) fn rows_of_groups(groups: &Groups, n_rows: usize) -> Vec<std::ops::Range<usize>> {
    match groups.rows() {
        None => std::iter::once(0..n_rows).collect(),
        Some(offsets) => {
            let offsets: Vec<usize> =
                offsets.clone().into_data().iter::<i64>().map(|offset| offset as usize).collect();
            offsets.windows(2).map(|pair| pair[0]..pair[1]).collect()
        }
    }
}

/// Matrix `e`, `[in, out]`.
fn transposed_matrix(weight: &FrozenWeight, e: usize) -> Tensor<2> {
    match weight {
        FrozenWeight::Dense(w) => w.clone().narrow(0, e, 1).squeeze_dim::<2>(0).transpose(),
        FrozenWeight::Transposed(w) => w.clone().narrow(0, e, 1).squeeze_dim(0),
        FrozenWeight::Mxfp4 { blocks, scales } => {
            let (blocks, scales) =
                (bytes(blocks.clone().narrow(0, e, 1)), bytes(scales.clone().narrow(0, e, 1)));
            let mut values = vec![0.0f32; scales.len() * BLOCK];
            descant_quant::mxfp4::decode(&blocks, &scales, &mut values);
            let data = TensorData::new(values, [weight.d_out(), weight.d_in()]);
            Tensor::<2>::from_data(data, &weight.device()).transpose()
        }
        FrozenWeight::Mxfp4Tiles { blocks, scales } => {
            let (blocks, scales) =
                (bytes(blocks.clone().narrow(0, e, 1)), bytes(scales.clone().narrow(0, e, 1)));
            let (blocks, scales) = descant_quant::mxfp4::tiles::read(&blocks, &scales, weight.d_in());
            let mut values = vec![0.0f32; scales.len() * BLOCK];
            descant_quant::mxfp4::decode(&blocks, &scales, &mut values);
            let data = TensorData::new(values, [weight.d_out(), weight.d_in()]);
            Tensor::<2>::from_data(data, &weight.device()).transpose()
        }
        FrozenWeight::Nf4 { blocks, scales, tables } => {
            let (blocks, scales) = (bytes(blocks.clone()), bytes(scales.clone()));
            let tables: Vec<f32> = tables.clone().into_data().iter().collect();
            let stack = nf4::View { blocks: &blocks, scales: &scales, tables: &tables };
            let mut values = vec![0.0f32; weight.d_out() * weight.d_in()];
            stack.decode(weight.n_matrices(), e, 0, &mut values);
            let data = TensorData::new(values, [weight.d_out(), weight.d_in()]);
            Tensor::<2>::from_data(data, &weight.device()).transpose()
        }
        FrozenWeight::Streamed(_) => {
            unreachable!("its shapes were checked against the kernels' when it was made")
        }
    }
}

fn bytes<const D: usize>(tensor: Tensor<D, Int>) -> Vec<u8> {
    tensor.into_data().iter::<i64>().map(|byte| byte as u8).collect()
}
