//! Ground floor of the CPU forms: slices out of tensors, matrix products, and vector loops.
//!
//! Results never depend on the number of threads: work is cut by sizes alone, each piece is computed by one
//! thread, and partial sums are added in the order of the pieces.

pub(crate) mod matmul;
pub(crate) mod vector;

use burn::tensor::{Shape, TensorData};
use burn_flex::FlexTensor;

/// The tensor with its elements in row-major order.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

/// The elements of a contiguous f32 tensor.
pub(crate) fn f32s(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("contiguous() was called, and the CPU operators compute in f32 only")
}

/// The elements of a contiguous i32 tensor.
pub(crate) fn i32s(tensor: &FlexTensor) -> &[i32] {
    tensor.as_slice().expect("contiguous() was called, and index tensors are i32")
}

/// The elements of a contiguous u8 tensor.
pub(crate) fn u8s(tensor: &FlexTensor) -> &[u8] {
    tensor.as_slice().expect("contiguous() was called, and packed weights are u8")
}

/// A new f32 tensor.
pub(crate) fn tensor_f32(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// A new i32 tensor.
pub(crate) fn tensor_i32(values: Vec<i32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// Cuts `slice` into consecutive pieces of the given lengths.
pub(crate) fn split_mut<T>(mut slice: &mut [T], lengths: impl Iterator<Item = usize>) -> Vec<&mut [T]> {
    lengths
        .map(|length| {
            let (piece, rest) = std::mem::take(&mut slice).split_at_mut(length);
            slice = rest;
            piece
        })
        .collect()
}
