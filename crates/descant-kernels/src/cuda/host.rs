//! Host memory for a card. Pinned, so that copies to and from it run beside other work, and mapped, so that a kernel may
//! read it in place; where the system refuses to pin it, pageable: the same bytes, copied by the driver through buffers of
//! its own at a third of the rate while a thread waits, and never read in place.

use std::ffi::c_void;

use cudarc::driver::sys::{self, CUresult};
use memmap2::{Advice, MmapMut};

use super::driver::{Stream, check, synchronize};
use super::error::{CudaError, PIN, Result};
use super::gpu::Gpu;
use super::testing::most_pinned;
use crate::source::Source;

/// Host memory of either kind, of its own pages.
///
/// It is written first, by several threads, and pinned then, in one piece: the driver takes 1.2 s for a GiB of pages that
/// it has to bring in itself, by one thread, and 0.05 s for pages that are there; and no copy may go over the end of a
/// pinned piece.
#[derive(Debug)]
pub(crate) struct HostStore {
    gpu: Gpu,
    pages: MmapMut,
    length: usize,
    /// Where the card has it, or why it is not pinned.
    pinned: std::result::Result<u64, CudaError>,
}

impl HostStore {
    /// These bytes.
    ///
    /// # Errors
    /// The system has no such memory, or the driver fails for another reason than that it may not be pinned.
    pub(crate) fn of(gpu: &Gpu, bytes: &Source<'_>) -> Result<Self> {
        let length = bytes.len();
        let no_pages = |error: std::io::Error| CudaError::Pages { bytes: length, text: error.to_string() };
        let mut pages = MmapMut::map_anon(length.max(1)).map_err(no_pages)?;
        // Fewer and larger pages are brought in faster; where there are none the small ones do.
        let _ = pages.advise(Advice::HugePage);
        bytes.write(0, &mut pages[..length]);
        gpu.enter()?;
        let pinned = match pin(&mut pages, length) {
            Err(error) if !error.refuses_to_pin() => return Err(error),
            pinned => pinned,
        };
        Ok(Self { gpu: gpu.clone(), pages, length, pinned })
    }

    /// So many bytes, zero.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub(crate) fn room(gpu: &Gpu, length: usize) -> Result<Self> {
        Self::of(gpu, &Source::made(length, &|_, out: &mut [u8]| out.fill(0)))
    }

    /// The bytes, to be read.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.pages[..self.length]
    }

    /// The bytes, to be written while no work on the card reads them.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.pages[..self.length]
    }

    /// Where the card reads them in place, if it can.
    pub(crate) fn address(&self) -> Option<u64> {
        self.pinned.as_ref().ok().copied()
    }

    /// Why they are not pinned, where they are not.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.pinned.as_ref().err().map(ToString::to_string)
    }
}

/// Pins pages that are there, and says where the card has them.
#[expect(unsafe_code, reason = "calls the driver")]
fn pin(pages: &mut MmapMut, length: usize) -> Result<u64> {
    if length > most_pinned() {
        let text = format!("{length} bytes, and no more than {} may be pinned here", most_pinned());
        return Err(CudaError::Driver { call: PIN, code: CUresult::CUDA_ERROR_OUT_OF_MEMORY, text });
    }
    let start: *mut c_void = pages.as_mut_ptr().cast();
    let flags = sys::CU_MEMHOSTREGISTER_PORTABLE | sys::CU_MEMHOSTREGISTER_DEVICEMAP;
    // SAFETY: the pages are this long and stay where they are until they are given back, which `drop` does.
    check(PIN, unsafe { sys::cuMemHostRegister_v2(start, pages.len(), flags) })?;
    let mut address = 0;
    // SAFETY: the memory was just registered as mapped.
    let found = check("cuMemHostGetDevicePointer", unsafe {
        sys::cuMemHostGetDevicePointer_v2(&raw mut address, start, 0)
    });
    if let Err(error) = found {
        // SAFETY: it was registered above, and nothing uses it.
        let _ = unsafe { sys::cuMemHostUnregister(start) };
        return Err(error);
    }
    Ok(address)
}

#[expect(unsafe_code, reason = "calls the driver")]
impl Drop for HostStore {
    fn drop(&mut self) {
        // Work that was queued may still read it.
        let recording = self.gpu.recording();
        let waited = self.gpu.enter().and_then(|()| synchronize());
        drop(recording);
        if self.pinned.is_ok() {
            // SAFETY: it was registered once, and nothing that was queued uses it any more. Where waiting failed the driver
            // is past using anything.
            let _ = unsafe { sys::cuMemHostUnregister(self.pages.as_mut_ptr().cast()) };
        }
        drop(waited);
    }
}

/// Pinned and mapped host memory.
#[derive(Debug)]
pub(crate) struct HostMemory(HostStore);

impl HostMemory {
    /// This many bytes, zero.
    ///
    /// # Errors
    /// The driver refuses, most often because the system lets nothing be pinned.
    pub(crate) fn new(gpu: &Gpu, length: usize) -> Result<Self> {
        let store = HostStore::room(gpu, length)?;
        match &store.pinned {
            Ok(_) => Ok(Self(store)),
            Err(error) => Err(error.clone()),
        }
    }

    /// The bytes, to be read.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// Where the card has them.
    pub(crate) fn address(&self) -> u64 {
        self.0.address().expect("made of what is pinned alone")
    }
}

/// Host memory that nobody but the card writes and reads, by copies.
#[derive(Debug)]
pub(crate) struct HostRoom {
    store: HostStore,
    start: usize,
    length: usize,
}

#[expect(unsafe_code, reason = "calls the driver")]
impl HostRoom {
    /// This many bytes.
    ///
    /// # Errors
    /// As [`HostStore::of`].
    pub(crate) fn new(gpu: &Gpu, length: usize) -> Result<Self> {
        let mut store = HostStore::room(gpu, length)?;
        let start = store.bytes_mut().as_mut_ptr() as usize;
        Ok(Self { store, start, length })
    }

    /// See [`HostStore::refusal`].
    pub(crate) fn refusal(&self) -> Option<String> {
        self.store.refusal()
    }

    /// Copies so many bytes from `offset` on to the card, on the stream.
    pub(crate) fn copy_in(&self, stream: Stream, to: u64, offset: u64, bytes: usize) -> Result<()> {
        let from = self.place(offset, bytes);
        // SAFETY: as below.
        check("cuMemcpyHtoDAsync", unsafe { sys::cuMemcpyHtoDAsync_v2(to, from, bytes, stream) })
    }

    /// Copies so many bytes from the card to `offset`, on the stream.
    pub(crate) fn copy_out(&self, stream: Stream, offset: u64, from: u64, bytes: usize) -> Result<()> {
        let to = self.place(offset, bytes);
        // SAFETY: the place is ours and this long; nobody but the card reads or writes it, in the order of the stream, and
        // it ends after the copies.
        check("cuMemcpyDtoHAsync", unsafe { sys::cuMemcpyDtoHAsync_v2(to, from, bytes, stream) })
    }

    /// Where so many bytes from `offset` on begin.
    fn place(&self, offset: u64, bytes: usize) -> *mut c_void {
        assert!(offset as usize + bytes <= self.length, "beyond the end");
        (self.start + offset as usize) as *mut c_void
    }
}
