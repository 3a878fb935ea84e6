//! Tensors without gaps between rows, made by copies and fills alone: values from the host, one number everywhere, vectors
//! behind each other.
//!
//! A card's backend lays what comes from the host with its rows apart where that suits its own reads, and makes the rest by
//! kernels of its own, which it compiles anew in each process. Nothing here asks for such a kernel. No graph.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// These values.
///
/// # Panics
/// If there are not as many as the shape says.
pub fn from_host<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    // A vector has no rows to lay apart.
    let vector = TensorData::new(values, [shape.iter().product::<usize>()]);
    Tensor::<1>::from_data(vector, (&device.clone().inner(), DType::F32)).reshape(shape)
}

/// Zeros.
pub fn zeros<const D: usize>(shape: [usize; D], dtype: DType, device: &Device) -> Tensor<D> {
    let device = device.clone().inner();
    #[cfg(feature = "cuda")]
    if let Some(index) = crate::cuda::index_of(&device) {
        return crate::cuda::tensor(crate::cuda::filled(shape, dtype, index, 0));
    }
    Tensor::zeros(shape, (&device, dtype))
}

/// So many times this byte.
pub(crate) fn bytes(n: usize, byte: u8, device: &Device) -> Tensor<1, Int> {
    let device = device.clone().inner();
    #[cfg(feature = "cuda")]
    if let Some(index) = crate::cuda::index_of(&device) {
        return crate::cuda::tensor(crate::cuda::filled([n], DType::U8, index, byte));
    }
    Tensor::full([n], i64::from(byte), (&device, DType::U8))
}

/// Vectors behind each other.
///
/// # Panics
/// If there are none.
pub fn joined(vectors: Vec<Tensor<1>>) -> Tensor<1> {
    assert!(!vectors.is_empty(), "something is put together");
    #[cfg(feature = "cuda")]
    if crate::is_cuda(&vectors[0].device()) {
        let vectors: Option<Vec<_>> =
            vectors.iter().map(|vector| crate::cuda::primitive(vector.clone()).ok()).collect();
        return crate::cuda::tensor(crate::cuda::joined(vectors.expect("they lie on a card, in no graph")));
    }
    Tensor::cat(vectors, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{read_bytes, read_floats};

    #[test]
    fn values_are_where_the_shape_has_them() {
        let device = Device::flex().autodiff();
        let three = from_host(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1, 2, 3], &device);
        assert!(!three.device().is_autodiff() && three.dims() == [1, 2, 3]);
        assert_eq!(read_floats(three.narrow(1, 1, 1)).unwrap(), [4.0, 5.0, 6.0]);
        assert_eq!(read_floats(zeros([2, 2], DType::F32, &device)).unwrap(), [0.0; 4]);
        assert_eq!(read_bytes(bytes(3, 127, &device)).unwrap(), [127; 3]);
        let vector = |values: &[f32]| from_host(values.to_vec(), [values.len()], &device);
        let all = joined(vec![vector(&[1.0, 2.0]), vector(&[3.0]), vector(&[4.0, 5.0])]);
        assert_eq!(read_floats(all).unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0]);
    }
}
