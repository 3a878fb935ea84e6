//! A table on the host of which a card reads some rows.

use burn::tensor::{Device, Int, Tensor};

use super::host::HostBytes;
#[cfg(feature = "cuda")]
use super::rows;
use crate::DeviceError;
use crate::device::only_on_a_card;

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
    /// The bytes are not those of the shape, or rows are not a multiple of 16 bytes.
    pub fn new(bytes: HostBytes, [rows, width]: [usize; 2], device: &Device) -> Result<Self, DeviceError> {
        if bytes.len() != 2 * rows * width || !width.is_multiple_of(8) {
            return Err(DeviceError::new(format!(
                "{} bytes are not a table of {rows} x {width}",
                bytes.len()
            )));
        }
        Ok(Self { bytes, rows, width, device: device.clone().inner() })
    }

    /// Where the card reads it.
    ///
    /// # Panics
    /// It does not: see [`is_in_place`](Self::is_in_place).
    #[cfg(feature = "cuda")]
    pub(crate) fn address(&self) -> u64 {
        self.bytes.address().expect("whoever wants the address asked whether there is one")
    }

    /// Whether the card reads it where it is; else the host gathers rows.
    pub fn is_in_place(&self) -> bool {
        only_on_a_card!(*self.bytes.0, (), self.bytes.address().is_some())
    }

    /// The rows of these indices, `[n, width]`, read by the card over the bus; of a table that is not pinned gathered by
    /// the host, which waits for the indices.
    ///
    /// # Shapes
    /// `indices` `[n]`, i32, each below the number of rows
    pub fn select(&self, indices: &Tensor<1, Int>) -> Tensor<2> {
        debug_assert!(self.rows > 0 && indices.device() == self.device);
        only_on_a_card!(*self.bytes.0, (), {
            if self.is_in_place() {
                rows::gather(&self.bytes.0, indices, self.width)
            } else {
                rows::gather_by_host(self.bytes.0.bytes(), indices, self.width)
            }
        })
    }
}
