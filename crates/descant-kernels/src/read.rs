//! Reading a result back: the one place where work that was queued on a device can say that it failed.
//!
//! An operator on a card returns before it has run, so that it cannot return its error. What follows a failure is
//! skipped, and its results are garbage: whoever reads one must ask, and these are the functions that do both.

use burn::tensor::kind::Basic;
use burn::tensor::{DType, Element, Int, Tensor};

/// A device did not do what was queued.
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
    /// A failure that has nothing to do with memory.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), out_of_memory: false }
    }
}

#[cfg(feature = "cuda")]
impl From<crate::cuda::CudaError> for DeviceError {
    fn from(error: crate::cuda::CudaError) -> Self {
        let what = error.hint().map_or_else(|| error.to_string(), |hint| format!("{error} (hint: {hint})"));
        Self { what, out_of_memory: error.is_out_of_memory() }
    }
}

/// The values of a tensor in f32, row by row, once everything that was queued before is known to have worked.
///
/// # Errors
/// The first failure on the tensor's device since it was last asked; the values are then lost.
pub fn read_floats<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, DeviceError> {
    read_all(vec![tensor]).map(|mut values| values.pop().unwrap_or_default())
}

/// The same of tensors of one device, which is waited for once.
///
/// # Errors
/// As [`read_floats`].
pub fn read_all<const D: usize>(tensors: Vec<Tensor<D>>) -> Result<Vec<Vec<f32>>, DeviceError> {
    let tensors = tensors.into_iter().map(|tensor| tensor.inner().cast(DType::F32));
    let tensors: Vec<Tensor<D>> = tensors.collect();
    #[cfg(feature = "cuda")]
    if let Some(tensors) = on_card(&tensors)? {
        return Ok(crate::cuda::read_all(tensors)?);
    }
    tensors.into_iter().map(on_host).collect()
}

/// The same of bytes.
///
/// # Errors
/// As [`read_floats`].
pub fn read_bytes(tensor: Tensor<1, Int>) -> Result<Vec<u8>, DeviceError> {
    #[cfg(feature = "cuda")]
    if let Some(tensor) = on_card(std::slice::from_ref(&tensor))?.and_then(|mut one| one.pop()) {
        return Ok(crate::cuda::read_bytes(tensor)?);
    }
    on_host(tensor)
}

/// The same of i32 numbers, of tensors of one device, which is waited for once.
///
/// # Errors
/// As [`read_floats`].
pub fn read_indices<const D: usize>(tensors: Vec<Tensor<D, Int>>) -> Result<Vec<Vec<i32>>, DeviceError> {
    #[cfg(feature = "cuda")]
    if let Some(tensors) = on_card(&tensors)? {
        return Ok(crate::cuda::read_indices(tensors)?);
    }
    tensors.into_iter().map(on_host).collect()
}
/// The tensors as they lie on their card, without gaps; none where they lie on no card.
#[cfg(feature = "cuda")]
fn on_card<const D: usize, K: crate::cuda::Kind>(
    tensors: &[Tensor<D, K>],
) -> Result<Option<Vec<burn_cubecl::tensor::CubeTensor>>, DeviceError> {
    if !tensors.first().is_some_and(|tensor| crate::is_cuda(&tensor.device())) {
        return Ok(None);
    }
    let plain = |tensor: &Tensor<D, K>| crate::cuda::primitive(tensor.clone()).map(crate::cuda::contiguous);
    Ok(Some(tensors.iter().map(plain).collect::<Result<_, _>>()?))
}

/// The values of a tensor that lies on none.
fn on_host<const D: usize, K: Basic, E: Element>(tensor: Tensor<D, K>) -> Result<Vec<E>, DeviceError> {
    let data = tensor.try_into_data().map_err(|error| DeviceError::new(error.to_string()))?;
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
            assert_eq!(read_floats(tensor.clone()).unwrap(), [1.0, 2.0, 3.0, 4.0]);
            let both = read_all(vec![tensor.clone() * 2.0, tensor]).unwrap();
            assert_eq!(both, [[2.0, 4.0, 6.0, 8.0], [1.0, 2.0, 3.0, 4.0]]);
            let bytes = Tensor::<1, Int>::from_data([7_u8, 255], (&device, DType::U8));
            assert_eq!(read_bytes(bytes).unwrap(), [7, 255]);
        }
    }
}
