//! Pinned host memory, so that copies to and from a card run beside other work, and mapped, so that a kernel may read it
//! in place.

use std::ffi::c_void;

use cudarc::driver::sys;

use super::driver::{check, synchronize};
use super::error::{PIN, Result};
use super::gpu::Gpu;
use crate::source::Source;

/// Pinned and mapped host memory.
#[derive(Debug)]
pub(crate) struct HostMemory {
    gpu: Gpu,
    start: *mut u8,
    length: usize,
    address: u64,
}

#[expect(unsafe_code, reason = "memory may be used from any thread")]
// SAFETY: this is the only owner of the memory, which is bound to no thread.
unsafe impl Send for HostMemory {}
#[expect(unsafe_code, reason = "as above")]
// SAFETY: shared references only read.
unsafe impl Sync for HostMemory {}

#[expect(unsafe_code, reason = "calls the driver, and makes slices of what it gives")]
impl HostMemory {
    /// This many bytes, zero.
    ///
    /// # Errors
    /// The driver refuses, most often because the system has no such memory to pin.
    pub(crate) fn new(gpu: &Gpu, length: usize) -> Result<Self> {
        Self::filled_by(gpu, length, |start| {
            // SAFETY: the memory was just given to us, and is this long.
            unsafe { start.write_bytes(0, length) };
        })
    }

    /// These bytes, written by several threads.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn of(gpu: &Gpu, bytes: &Source<'_>) -> Result<Self> {
        let mut new = Self::filled_by(gpu, bytes.len(), |_| {})?;
        // Fresh memory of the system, which any byte may stand in.
        bytes.write(0, new.bytes_mut());
        Ok(new)
    }

    /// `fill` writes all of it.
    fn filled_by(gpu: &Gpu, length: usize, fill: impl FnOnce(*mut u8)) -> Result<Self> {
        gpu.enter()?;
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        let mut start: *mut c_void = std::ptr::null_mut();
        // SAFETY: the pointer is to a variable that lives through the call.
        check(PIN, unsafe { sys::cuMemHostAlloc(&raw mut start, length.max(1), flags) })?;
        let mut new = Self { gpu: gpu.clone(), start: start.cast(), length, address: 0 };
        fill(new.start);
        // SAFETY: the memory was allocated as mapped.
        check("cuMemHostGetDevicePointer", unsafe {
            sys::cuMemHostGetDevicePointer_v2(&raw mut new.address, start, 0)
        })?;
        Ok(new)
    }

    /// The bytes, to be read.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: ours, initialized, this long, and the card only reads it.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }

    /// Where the card reads them.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// The bytes, to be written while no work on the card reads them.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: ours, initialized, this long, and borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.length) }
    }
}

/// Pinned host memory that nobody but the card writes and reads.
#[derive(Debug)]
pub(crate) struct HostRoom(HostMemory);

impl HostRoom {
    /// This many bytes with arbitrary contents.
    ///
    /// # Errors
    /// As [`HostMemory::new`].
    pub(crate) fn new(gpu: &Gpu, length: usize) -> Result<Self> {
        HostMemory::filled_by(gpu, length, |_| {}).map(Self)
    }

    /// Where the card has it.
    pub(crate) fn address(&self) -> u64 {
        self.0.address
    }
}

#[expect(unsafe_code, reason = "calls the driver")]
impl Drop for HostMemory {
    fn drop(&mut self) {
        // Work that was queued may still read it.
        let waited = self.gpu.enter().and_then(|()| synchronize());
        if waited.is_ok() {
            // SAFETY: ours, and freed once. Where waiting failed it is left, the process being at its end anyway.
            let _ = unsafe { sys::cuMemFreeHost(self.start.cast()) };
        }
    }
}
