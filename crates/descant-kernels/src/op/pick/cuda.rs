//! The greedy choice on a CUDA card: a launch, and an id a row to read.

use burn::backend::TensorMetadata as _;
use burn::tensor::{DType, Tensor};

use crate::DeviceError;
use crate::cuda::{self, Arg};

/// Ids below this are exact in f32.
const MAX_IDS: usize = 1 << 24;

/// Whether there is a kernel for these logits.
pub(super) fn has_form(logits: &Tensor<2>) -> bool {
    let [_, width] = logits.dims();
    logits.dtype() == DType::BF16 && width.is_multiple_of(8) && width < MAX_IDS
}

/// See [`best_tokens`](super::best_tokens).
pub(super) fn best_tokens(logits: Tensor<2>) -> Result<Vec<u32>, DeviceError> {
    let logits = cuda::contiguous(cuda::primitive(logits)?);
    let [rows, width] = cuda::matrix(&logits);
    let ids = cuda::empty([rows], DType::F32, &logits.device);
    cuda::gpu_of(&logits).enqueue(cuda::handles([&logits, &ids]), move |run, p| {
        let arguments = [Arg::Ptr(p[0]), Arg::Ptr(p[1]), Arg::size(width)];
        run.launch(run.kernel("pick", "best_tokens", &[])?, rows, 1024u32, 0, &arguments)
    });
    debug_assert_eq!(ids.shape().num_elements(), rows);
    Ok(cuda::read(ids)?.into_iter().map(|id| id as u32).collect())
}
