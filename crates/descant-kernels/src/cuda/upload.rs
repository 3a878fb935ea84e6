//! Weights from mapped files into burn's buffers: through two pinned buffers, on a stream of their own.
//!
//! While the card takes one buffer over the bus, the host fills the other from the file's pages. No other copy of
//! the model exists on the host.

use burn::backend::TensorMetadata as _;
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::server::Handle;

use super::driver::{self, OwnStream};
use super::error::{CudaError, Result};
use super::event::Event;
use super::gpu::Gpu;
use super::host::HostStore;
use super::run::Run;
use super::tensor;
use crate::source::Source;

/// Bytes of a pinned buffer: long enough that the bus is busy, short enough to be nothing beside a model.
const BUFFER: usize = 32 << 20;

/// Copies host bytes into tensors on one card.
#[derive(Debug)]
pub struct Uploader {
    gpu: Gpu,
    stream: OwnStream,
    buffers: [Buffer; 2],
    /// Which buffer is next.
    turn: usize,
}

#[derive(Debug)]
struct Buffer {
    memory: HostStore,
    /// Passed when the card has taken what is in it.
    taken: Event,
}

impl Buffer {
    fn new(gpu: &Gpu) -> Result<Self> {
        Ok(Self { memory: HostStore::room(gpu, BUFFER)?, taken: Event::new(false)? })
    }
}

impl Uploader {
    /// Of a card.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn new(gpu: &Gpu) -> Result<Self> {
        gpu.enter()?;
        let buffers = [Buffer::new(gpu)?, Buffer::new(gpu)?];
        Ok(Self { gpu: gpu.clone(), stream: OwnStream::new()?, buffers, turn: 0 })
    }

    /// A tensor of these bytes, in memory of exactly its size that stays for as long as the tensor.
    ///
    /// Work that this thread queues later finds the bytes there; the host may give up the source when this returns.
    ///
    /// # Errors
    /// The bytes are not those of the shape, or the driver refuses.
    pub fn tensor(
        &mut self,
        bytes: &Source<'_>,
        shape: impl Into<Shape>,
        dtype: DType,
    ) -> Result<CubeTensor> {
        self.tensor_then(bytes, shape, dtype, |_, _| Ok(()))
    }

    /// The same, with work of the card on the bytes where they have arrived, in the stream of the copies.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor), and those of the work.
    pub(crate) fn tensor_then(
        &mut self,
        bytes: &Source<'_>,
        shape: impl Into<Shape>,
        dtype: DType,
        then: impl FnOnce(&Run<'_>, u64) -> Result<()>,
    ) -> Result<CubeTensor> {
        let new = self.room(shape, dtype);
        let expected = new.shape().num_elements() * dtype.size();
        if expected != bytes.len() {
            let text = format!("{} bytes for a tensor of {expected}", bytes.len());
            return Err(CudaError::backend(text));
        }
        // Where the pool was not to grow that is the cause, and what came of it is not.
        let copied = self.copy(&new.handle, 0, bytes, then);
        copied.map_err(|error| self.gpu.take_error().unwrap_or(error))?;
        Ok(new)
    }

    /// A tensor that is to be filled, in memory of exactly its size that stays for as long as the tensor.
    pub(crate) fn room(&self, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
        tensor::empty_alone(shape.into(), dtype, &tensor::cube_device(self.gpu.index()))
    }

    /// Copies `bytes` to a tensor from byte `offset` on.
    ///
    /// # Errors
    /// They reach beyond its end, or the driver refuses.
    pub(crate) fn fill(&mut self, to: &CubeTensor, offset: usize, bytes: &Source<'_>) -> Result<()> {
        let room = to.shape().num_elements() * to.dtype.size();
        if offset + bytes.len() > room {
            let text = format!("{} bytes from {offset} on for a tensor of {room}", bytes.len());
            return Err(CudaError::backend(text));
        }
        let copied = self.copy(&to.handle, offset, bytes, |_, _| Ok(()));
        copied.map_err(|error| self.gpu.take_error().unwrap_or(error))
    }

    /// Copies `bytes` into a buffer from `offset` on, and does `then` behind them.
    fn copy(
        &mut self,
        to: &Handle,
        offset: usize,
        bytes: &Source<'_>,
        then: impl FnOnce(&Run<'_>, u64) -> Result<()>,
    ) -> Result<()> {
        self.gpu.enter()?;
        // Whatever used the memory before, in burn's stream, comes first.
        let (held, before) = self.gpu.thread().call(vec![to.clone()], |stream, held| {
            let before = Event::new(false)?;
            before.record(stream)?;
            Ok((held, before))
        })?;
        before.hold(self.stream.0)?;
        let start = held[0].address + offset as u64;
        for first in (0..bytes.len()).step_by(BUFFER) {
            let buffer = &mut self.buffers[self.turn];
            self.turn = 1 - self.turn;
            buffer.taken.wait()?;
            let pinned = &mut buffer.memory.bytes_mut()[..BUFFER.min(bytes.len() - first)];
            bytes.write(first, pinned);
            driver::copy_from_host(self.stream.0, start + first as u64, pinned)?;
            buffer.taken.record(self.stream.0)?;
        }
        then(&Run { gpu: &self.gpu, stream: self.stream.0, choices: None }, start)?;
        let after = Event::new(false)?;
        after.record(self.stream.0)?;
        self.gpu.thread().call(Vec::new(), move |stream, _| after.hold(stream))?;
        // Only now may the pool move or give away the memory: burn's stream is behind the copies.
        drop(held);
        Ok(())
    }

    /// Waits until everything has arrived.
    ///
    /// # Errors
    /// The driver reports a failure of the copies.
    pub fn finish(self) -> Result<()> {
        self.gpu.enter()?;
        self.stream.wait()
    }
}
