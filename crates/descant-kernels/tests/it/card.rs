//! What tests on a CUDA card share. They are ignored where none is asked for: `--include-ignored` runs them, and then
//! a missing card is a failure.

use burn::tensor::{DType, Device, Int, Tensor};
use descant_kernels::cuda::{Gpu, poison_buffers};
use descant_kernels::{FrozenWeight, read_floats};

/// The first card, with poisoned buffers.
pub(crate) fn card() -> Device {
    if let Err(error) = Gpu::of(0) {
        panic!("this test needs a card: {error}");
    }
    poison_buffers(true);
    Device::cuda(0)
}

/// The values rounded to bf16, on the CPU in f32.
pub(crate) fn rounded<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.cast(DType::BF16).cast(DType::F32)
}

/// A copy on a device, in a type.
pub(crate) fn on<const D: usize>(x: &Tensor<D>, device: &Device, dtype: DType) -> Tensor<D> {
    Tensor::<D>::from_data(x.clone().into_data(), (device, DType::F32)).cast(dtype)
}

/// The same integers on a device.
pub(crate) fn ints_on<const D: usize>(x: &Tensor<D, Int>, device: &Device) -> Tensor<D, Int> {
    let dtype = x.dtype();
    Tensor::from_data(x.clone().into_data(), (device, dtype))
}

/// MXFP4 as it was published, in the form that a card reads.
pub(crate) fn mxfp4_on(weight: &FrozenWeight, device: &Device) -> FrozenWeight {
    weight.mxfp4_on(device).expect("a shape and scales that kernels know")
}

/// A weight in the form that the device reads, dense ones in a type.
pub(crate) fn weight_on(weight: &FrozenWeight, device: &Device, dtype: DType) -> FrozenWeight {
    match weight {
        FrozenWeight::Dense(w) => FrozenWeight::Dense(on(w, device, dtype)),
        FrozenWeight::Transposed(w) => FrozenWeight::Transposed(on(w, device, dtype)),
        FrozenWeight::Mxfp4 { .. } => mxfp4_on(weight, device),
        FrozenWeight::Mxfp4Tiles { .. } => unreachable!("cases are made on the CPU"),
        FrozenWeight::Nf4 { blocks, scales, tables } => FrozenWeight::Nf4 {
            blocks: ints_on(blocks, device),
            scales: ints_on(scales, device),
            tables: on(tables, device, DType::F32),
        },
        FrozenWeight::Streamed(_) => unreachable!("no case streams"),
    }
}

/// Its values in f32, if nothing failed on the way to them.
pub(crate) fn floats<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    read_floats(x).expect("nothing failed before")
}

/// Norm of the difference by norm of `b`; NaN stays NaN.
pub(crate) fn error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
    (difference / norm.max(1e-30)).sqrt()
}
