//! Pinned host memory, so that copies to and from a card run beside other work.

use std::ffi::c_void;

use cudarc::driver::sys;

use super::driver::{check, synchronize};
use super::error::Result;
use super::gpu::Gpu;

/// Pinned host memory.
#[derive(Debug)]
pub(crate) struct HostMemory {
    gpu: Gpu,
    start: *mut u8,
    length: usize,
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
        gpu.enter()?;
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE;
        let mut start: *mut c_void = std::ptr::null_mut();
        // SAFETY: the pointer is to a variable that lives through the call.
        check("cuMemHostAlloc", unsafe { sys::cuMemHostAlloc(&raw mut start, length.max(1), flags) })?;
        let new = Self { gpu: gpu.clone(), start: start.cast(), length };
        // SAFETY: the memory was just given to us, and is this long.
        unsafe { new.start.write_bytes(0, length) };
        Ok(new)
    }

    /// The bytes, to be written while no work on the card reads them.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: ours, initialized, this long, and borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.length) }
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
