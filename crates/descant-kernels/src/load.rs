//! Bytes of a checkpoint become tensors: on the CPU by a copy, on a CUDA card through pinned buffers into memory of
//! exactly the tensor's size, beside whatever else the card does.
//!
//! Knows no files and no names.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::DeviceError;
use crate::source::Source;
use crate::stream::HostBytes;

/// Brings tensors to one device.
#[derive(Debug)]
pub struct Loader {
    device: Device,
    #[cfg(feature = "cuda")]
    uploader: Option<crate::cuda::Uploader>,
}

impl Loader {
    /// To this device.
    ///
    /// # Errors
    /// The card or its driver refuses.
    pub fn new(device: &Device) -> Result<Self, DeviceError> {
        let device = device.clone().inner();
        #[cfg(feature = "cuda")]
        let uploader = match crate::cuda::index_of(&device) {
            Some(index) => {
                let gpu = crate::cuda::Gpu::of(index)?;
                Some(crate::cuda::Uploader::new(&gpu)?)
            }
            None => None,
        };
        Ok(Self {
            device,
            #[cfg(feature = "cuda")]
            uploader,
        })
    }

    /// A vector of these little-endian floats.
    ///
    /// # Errors
    /// The card refuses, for example because its memory is full.
    pub fn floats(&mut self, bytes: &[u8], dtype: DType) -> Result<Tensor<1>, DeviceError> {
        let n = bytes.len() / dtype.size();
        #[cfg(feature = "cuda")]
        if let Some(uploader) = &mut self.uploader {
            let tensor = uploader.tensor(&bytes.into(), [n], dtype)?;
            return Ok(crate::cuda::tensor(tensor));
        }
        let data = TensorData::from_bytes_vec(bytes.to_vec(), [n], dtype);
        Ok(Tensor::from_data(data, (&self.device, dtype)))
    }

    /// A vector of these bytes.
    ///
    /// # Errors
    /// As [`floats`](Self::floats).
    pub fn bytes(&mut self, bytes: &Source<'_>) -> Result<Tensor<1, Int>, DeviceError> {
        #[cfg(feature = "cuda")]
        if let Some(uploader) = &mut self.uploader {
            let tensor = uploader.tensor(bytes, [bytes.len()], DType::U8)?;
            return Ok(crate::cuda::int_tensor(tensor));
        }
        let data = TensorData::from_bytes_vec(bytes.to_vec(), [bytes.len()], DType::U8);
        Ok(Tensor::from_data(data, (&self.device, DType::U8)))
    }

    /// These bytes in pinned host memory, for what has no room on the card.
    ///
    /// # Errors
    /// The device is no card, or the system has no such memory to pin.
    pub fn pinned(&mut self, bytes: &Source<'_>) -> Result<HostBytes, DeviceError> {
        #[cfg(feature = "cuda")]
        if let Some(index) = crate::cuda::index_of(&self.device) {
            let memory = crate::cuda::HostMemory::of(&crate::cuda::Gpu::of(index)?, bytes)?;
            return Ok(HostBytes::new(memory));
        }
        Err(DeviceError::new(format!("{} bytes were to lie beside a card, and there is none", bytes.len())))
    }

    /// Waits until everything has arrived.
    ///
    /// # Errors
    /// A copy failed.
    pub fn finish(self) -> Result<(), DeviceError> {
        #[cfg(feature = "cuda")]
        if let Some(uploader) = self.uploader {
            return Ok(uploader.finish()?);
        }
        Ok(())
    }
}
