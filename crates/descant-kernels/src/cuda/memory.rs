//! Device memory of our own, outside CubeCL's pools: one piece, at one address, until it is dropped.

use super::driver::Scratch;
use super::error::Result;
use super::gpu::Gpu;

/// A piece of a card's memory.
#[derive(Debug)]
pub(crate) struct DeviceMemory {
    gpu: Gpu,
    piece: Option<Scratch>,
    bytes: u64,
}

impl DeviceMemory {
    /// This many bytes with arbitrary contents.
    ///
    /// # Errors
    /// The card has no such piece left.
    pub(crate) fn new(gpu: &Gpu, bytes: usize) -> Result<Self> {
        gpu.enter()?;
        let piece = Some(Scratch::new(bytes.max(1))?);
        gpu.count(bytes as i64);
        Ok(Self { gpu: gpu.clone(), piece, bytes: bytes as u64 })
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
            self.gpu.count(-(self.bytes as i64));
        } else {
            std::mem::forget(self.piece.take());
        }
    }
}

/// For tests: a card that another program fills while this lives. What is taken is counted as nobody's.
#[derive(Debug)]
pub struct Occupied {
    gpu: Gpu,
    pieces: Vec<Scratch>,
}

/// Pieces of a card are not asked for in smaller ones than this.
const LEAST_PIECE: usize = 1 << 20;

impl Occupied {
    /// All of the card but so many bytes.
    ///
    /// # Errors
    /// The driver does not report what is free.
    pub fn all_but(gpu: &Gpu, left: usize) -> Result<Self> {
        gpu.enter()?;
        let mut pieces = Vec::new();
        let mut piece = gpu.memory()?.0;
        while piece >= LEAST_PIECE {
            let wanted = piece.min(gpu.memory()?.0.saturating_sub(left));
            // Where there is no such piece there may be smaller ones.
            match Scratch::new(wanted.max(1)) {
                Ok(one) if wanted >= LEAST_PIECE => pieces.push(one),
                _ => piece /= 2,
            }
        }
        Ok(Self { gpu: gpu.clone(), pieces })
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        if self.gpu.enter().is_err() {
            self.pieces.drain(..).for_each(std::mem::forget);
        }
    }
}
