//! Row writes on slices.

use burn::backend::{Flex, TensorMetadata};
use burn_flex::FlexTensor;

use super::CacheOp;
use crate::cpu::{contiguous, f32s, i32s};

impl CacheOp for Flex {
    fn write_rows(cache: FlexTensor, rows: FlexTensor, values: FlexTensor) -> FlexTensor {
        let (mut cache, rows, values) = (contiguous(cache), contiguous(rows), contiguous(values));
        let width = values.shape()[1];
        let storage: &mut [f32] = cache.storage_mut();
        for (&row, values) in i32s(&rows).iter().zip(f32s(&values).chunks_exact(width)) {
            storage[row as usize * width..][..width].copy_from_slice(values);
        }
        cache
    }
}
