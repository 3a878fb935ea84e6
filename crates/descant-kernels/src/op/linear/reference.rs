//! The product in burn operations, a matrix at a time; packed weights are decoded on the host.

use burn::tensor::{Int, Tensor, TensorData};
use descant_quant::{mxfp4, nf4};

use super::weight::{FrozenWeight, Groups};

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
    let mut values = vec![0.0f32; weight.d_out() * weight.d_in()];
    match weight {
        FrozenWeight::Dense(w) => return w.clone().narrow(0, e, 1).squeeze_dim::<2>(0).transpose(),
        FrozenWeight::Transposed(w) => return w.clone().narrow(0, e, 1).squeeze_dim(0),
        FrozenWeight::Mxfp4 { blocks, scales } => {
            mxfp4::decode(&of_matrix(blocks, e), &of_matrix(scales, e), &mut values);
        }
        FrozenWeight::Mxfp4Tiles { blocks, scales } => {
            let (blocks, scales) =
                mxfp4::tiles::read(&of_matrix(blocks, e), &of_matrix(scales, e), weight.d_in());
            mxfp4::decode(&blocks, &scales, &mut values);
        }
        FrozenWeight::Nf4 { blocks, scales, tables } => {
            let (blocks, scales) = (bytes(blocks.clone()), bytes(scales.clone()));
            let tables: Vec<f32> = tables.clone().into_data().iter().collect();
            let stack = nf4::View { blocks: &blocks, scales: &scales, tables: &tables };
            stack.decode(weight.n_matrices(), e, 0, &mut values);
        }
        FrozenWeight::Streamed(_) => {
            unreachable!("its shapes were checked against the kernels' when it was made")
        }
    }
    let data = TensorData::new(values, [weight.d_out(), weight.d_in()]);
    Tensor::<2>::from_data(data, &weight.device()).transpose()
}

fn of_matrix<const D: usize>(tensor: &Tensor<D, Int>, e: usize) -> Vec<u8> {
    bytes(tensor.clone().narrow(0, e, 1))
}

fn bytes<const D: usize>(tensor: Tensor<D, Int>) -> Vec<u8> {
    tensor.into_data().iter::<i64>().map(|byte| byte as u8).collect()
}
