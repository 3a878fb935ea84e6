//! A table on the host of which a card reads some rows.

use burn::tensor::{Device, Int, Tensor};

use super::host::HostBytes;
#[cfg(feature = "cuda")]
use super::rows;
use crate::DeviceError;

/// A frozen table of bf16 rows on the host, `[rows, width]`.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "a card alone reads it"))]
pub struct HostTable {
    bytes: HostBytes,
    rows: usize,
    width: usize,
    device: Device,
}

impl HostTable {
    /// # Errors
    /// The bytes are not those of the shape, or rows are no multiple of 16 bytes.
    pub fn new(bytes: HostBytes, [rows, width]: [usize; 2], device: &Device) -> Result<Self, DeviceError> {
        if bytes.len() != 2 * rows * width || !width.is_multiple_of(8) {
            return Err(DeviceError::new(format!("{} bytes are no table of {rows} x {width}", bytes.len())));
        }
        Ok(Self { bytes, rows, width, device: device.clone().inner() })
    }

    /// Where the card reads it.
    #[cfg(feature = "cuda")]
    pub(crate) fn address(&self) -> u64 {
        self.bytes.0.address()
    }

    /// The rows of these indices, `[n, width]`, read by the card over the bus.
    ///
    /// # Shapes
    /// `indices` `[n]`, i32, each below the number of rows
    pub fn select(&self, indices: &Tensor<1, Int>) -> Tensor<2> {
        debug_assert!(self.rows > 0 && indices.device() == self.device);
        #[cfg(feature = "cuda")]
        return rows::gather(&self.bytes.0, indices, self.width);
        #[cfg(not(feature = "cuda"))]
        match *self.bytes.0 {}
    }
}
