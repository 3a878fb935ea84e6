//! The float types of checkpoints, as f32.

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// The values as f32, `None` for a type that is not a float we read. Bytes are little-endian and maybe unaligned.
pub(super) fn floats(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let pairs = || view.data().chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    Some(match view.dtype() {
        Dtype::F32 => {
            view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        Dtype::BF16 => pairs().map(|bits| bf16::from_bits(bits).to_f32()).collect(),
        Dtype::F16 => pairs().map(|bits| f16::from_bits(bits).to_f32()).collect(),
        _ => return None,
    })
}
