//! Reading a result back: the one place where work that was queued on a device can say that it failed.
//!
//! An operator on a card returns before it has run, so that it cannot return its error. What follows a failure is
//! skipped, and its results are garbage: whoever reads one must ask, and this is the function that does both.

use burn::tensor::{DType, Tensor};

/// A device did not do what it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceError {
    /// What went wrong, with a hint where there is one.
    pub what: String,
    /// Whether the device's memory was too small.
    pub out_of_memory: bool,
}

impl std::fmt::Display for DeviceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the device failed: {}", self.what)
    }
}

impl std::error::Error for DeviceError {}

impl DeviceError {
    /// What a library below says of a failure.
    pub(crate) fn new(what: String) -> Self {
        let lower = what.to_lowercase();
        let out_of_memory = ["out_of_memory", "out of memory", "out of device memory", "outofmemory"]
            .iter()
            .any(|s| lower.contains(s));
        Self { what, out_of_memory }
    }
}

/// The values of a tensor in f32, row by row, once everything that was queued before is known to have worked.
///
/// # Errors
/// The first failure on the tensor's device since it was last asked; the values are then lost.
pub fn read_floats<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, DeviceError> {
    #[cfg(feature = "cuda")]
    let device = tensor.device();
    let data = tensor.inner().cast(DType::F32).try_into_data();
    // Our own launches first: what burn then failed to read may be only their consequence.
    #[cfg(feature = "cuda")]
    if let Some(index) = crate::cuda::index_of(&device) {
        crate::cuda::gauge::check(index).map_err(DeviceError::new)?;
    }
    let data = data.map_err(|error| DeviceError::new(error.to_string()))?;
    data.try_to_vec().map_err(|error| DeviceError::new(format!("{error:?}")))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn values_come_in_order_from_a_graph_and_from_a_plain_device() {
        for device in [Device::flex(), Device::flex().autodiff()] {
            let tensor = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0]], (&device, DType::F32));
            assert_eq!(read_floats(tensor).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        }
    }

    #[test]
    fn memory_that_is_too_small_is_told_from_other_failures() {
        for text in [
            "cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY",
            "CubeCL: Several failures at once\n  out of device memory allocating 3222274048 bytes",
            "OutOfMemory { .. }",
        ] {
            assert!(DeviceError::new(text.into()).out_of_memory, "{text}");
        }
        assert!(!DeviceError::new("cuLaunchKernel: CUDA_ERROR_INVALID_VALUE".into()).out_of_memory);
    }
}
