//! Bytes of a checkpoint become tensors: on the CPU by a copy, on a CUDA card through pinned buffers into memory of
//! exactly the tensor's size, beside whatever else the card does.
//!
//! Knows no files and no names.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::DeviceError;
use crate::op::linear::{Mxfp4Layout, Mxfp4Piece};
use crate::source::Source;
use crate::stream::HostBytes;

/// Brings tensors to one device.
#[derive(Debug)]
pub struct Loader {
    device: Device,
    not_pinned: Option<NotPinned>,
    #[cfg(feature = "cuda")]
    uploader: Option<crate::cuda::Uploader>,
}

/// Tensors that lie beside a card in memory that the system did not pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotPinned {
    /// How many.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The driver's words for the first.
    pub why: String,
}

impl std::fmt::Display for NotPinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tensors, bytes, why } = self;
        write!(
            f,
            "{tensors} tensors on the host ({:.2} GB) are not pinned ({why}): the card copies them at about a third of the \
             rate and reads none in place; results are the same. Raise the limit of locked memory (`ulimit -l`) or of the \
             container",
            *bytes as f64 / 1e9
        )
    }
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
            not_pinned: None,
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
            return Ok(crate::cuda::tensor(tensor));
        }
        let data = TensorData::from_bytes_vec(bytes.to_vec(), [bytes.len()], DType::U8);
        Ok(Tensor::from_data(data, (&self.device, DType::U8)))
    }

    /// A published piece of MXFP4 matrices as the device reads it; a card puts it in order itself.
    ///
    /// # Errors
    /// As [`floats`](Self::floats).
    pub fn mxfp4(
        &mut self,
        layout: &Mxfp4Layout,
        piece: Mxfp4Piece,
        published: &[u8],
    ) -> Result<Tensor<1, Int>, DeviceError> {
        #[cfg(feature = "cuda")]
        if let (Some(uploader), Some(shape)) = (&mut self.uploader, layout.tiled()) {
            let tensor =
                uploader.tensor_then(&published.into(), [published.len()], DType::U8, |run, at| {
                    crate::op::linear::cuda::in_tiles(run, piece, at, shape)
                })?;
            return Ok(crate::cuda::tensor(tensor));
        }
        let write = |first: usize, out: &mut [u8]| layout.write(piece, published, first, out);
        self.bytes(&Source::made(published.len(), &write))
    }

    /// Room on a card for so many floats, which [`fill`](Self::fill) fills.
    ///
    /// # Errors
    /// The device is not a card.
    pub fn room(&mut self, n: usize, dtype: DType) -> Result<Tensor<1>, DeviceError> {
        #[cfg(feature = "cuda")]
        if let Some(uploader) = &self.uploader {
            return Ok(crate::cuda::tensor(uploader.room([n], dtype)));
        }
        Err(DeviceError::new(format!("room for {n} {dtype:?} on a card was wanted, and there is none")))
    }

    /// Copies little-endian floats to a card's tensor, from element `first` on.
    ///
    /// # Errors
    /// They reach beyond its end, the device is not a card, or the driver fails.
    pub fn fill(&mut self, to: &Tensor<1>, first: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        #[cfg(feature = "cuda")]
        if let Some(uploader) = &mut self.uploader {
            let to = crate::cuda::primitive(to.clone())?;
            let offset = first * to.dtype.size();
            return Ok(uploader.fill(&to, offset, &bytes.into())?);
        }
        let (room, length) = (to.dims()[0], bytes.len());
        Err(DeviceError::new(format!(
            "{length} bytes from element {first} on for {room} on a card, and there is none"
        )))
    }

    /// These bytes in host memory beside the card, for what has no room on it: pinned, or where the system refuses that
    /// pageable and [counted](Self::not_pinned).
    ///
    /// # Errors
    /// The device is not a card, or its driver fails.
    pub fn beside(&mut self, bytes: &Source<'_>) -> Result<HostBytes, DeviceError> {
        #[cfg(feature = "cuda")]
        if let Some(index) = crate::cuda::index_of(&self.device) {
            let store = crate::cuda::HostStore::of(&crate::cuda::Gpu::of(index)?, bytes)?;
            if let Some(why) = store.refusal() {
                let none = NotPinned { tensors: 0, bytes: 0, why };
                let sum = self.not_pinned.get_or_insert(none);
                (sum.tensors, sum.bytes) = (sum.tensors + 1, sum.bytes + bytes.len() as u64);
            }
            return Ok(HostBytes::new(store));
        }
        Err(DeviceError::new(format!("{} bytes were to lie beside a card, and there is none", bytes.len())))
    }

    /// What the system refused to pin so far.
    pub fn not_pinned(&self) -> Option<&NotPinned> {
        self.not_pinned.as_ref()
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
