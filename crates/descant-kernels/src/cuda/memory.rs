//! Device memory of our own, outside CubeCL's pools: one piece, at one address, for as long as it is held.

use super::driver::Scratch;
use super::error::Result;
use super::gpu::Gpu;

/// A piece of a card's memory.
#[derive(Debug)]
pub(crate) struct DeviceMemory {
    gpu: Gpu,
    piece: Option<Scratch>,
}

impl DeviceMemory {
    /// This many bytes with arbitrary contents.
    ///
    /// # Errors
    /// The card has no such piece left.
    pub(crate) fn new(gpu: &Gpu, bytes: usize) -> Result<Self> {
        gpu.enter()?;
        Ok(Self { gpu: gpu.clone(), piece: Some(Scratch::new(bytes.max(1))?) })
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> u64 {
        self.piece.as_ref().expect("taken by drop alone").address
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // Freeing needs the card's context; the driver then waits for the work that still uses the piece.
        if self.gpu.enter().is_ok() {
            drop(self.piece.take());
        } else {
            std::mem::forget(self.piece.take());
        }
    }
}
