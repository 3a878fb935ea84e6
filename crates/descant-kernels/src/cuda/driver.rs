//! The few calls of the CUDA driver that we make, each as a function that returns an error.
//!
//! All of them need the card's context to be current: on CubeCL's device thread it is, elsewhere [`Context`] makes
//! it so.

use std::ffi::{CStr, CString, c_void};

use cudarc::driver::{result::DriverError, sys};

use super::architecture::Capability;
use super::error::{CudaError, Result, require};
use super::library::Library;

/// A stream of the driver.
pub(crate) type Stream = sys::CUstream;

/// Turns a status into an error with the driver's words.
pub(crate) fn check(call: &'static str, result: sys::CUresult) -> Result<()> {
    if result == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let error = DriverError(result);
    let words = error.error_string().map_or("", |text| text.to_str().unwrap_or(""));
    Err(CudaError::Driver { call, code: result, text: format!("{result:?}: {words}") })
}

/// What we ask about a card once.
#[derive(Debug, Clone)]
pub(crate) struct Card {
    pub(crate) device: sys::CUdevice,
    pub(crate) name: String,
    pub(crate) capability: Capability,
    pub(crate) multiprocessors: u32,
}

#[expect(unsafe_code, reason = "calls the driver")]
impl Card {
    /// The card of this index.
    pub(crate) fn of(index: usize) -> Result<Self> {
        use sys::CUdevice_attribute as Attribute;
        require(Library::Driver)?;
        let mut device = 0;
        let mut name = [0; 256];
        // SAFETY: no conditions; initializing twice is allowed.
        check("cuInit", unsafe { sys::cuInit(0) })?;
        // SAFETY: the pointer is to a variable that lives through the call.
        check("cuDeviceGet", unsafe { sys::cuDeviceGet(&raw mut device, index as i32) })?;
        // SAFETY: the buffer has the length that is given.
        check("cuDeviceGetName", unsafe { sys::cuDeviceGetName(name.as_mut_ptr(), 256, device) })?;
        let attribute = |attribute| {
            let mut value = 0;
            // SAFETY: the pointer is to a variable that lives through the call.
            let result = unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, device) };
            check("cuDeviceGetAttribute", result).map(|()| value)
        };
        Ok(Self {
            device,
            // SAFETY: the driver ends the name with a zero within the buffer.
            name: unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned(),
            capability: Capability {
                major: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as u8,
                minor: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as u8,
            },
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
        })
    }
}

/// Cards that the driver shows; none where there is no driver.
#[expect(unsafe_code, reason = "calls the driver")]
pub fn cards() -> usize {
    let mut count = 0;
    let counted = require(Library::Driver).and_then(|()| {
        // SAFETY: no conditions; initializing twice is allowed.
        check("cuInit", unsafe { sys::cuInit(0) })?;
        // SAFETY: the pointer is to a variable that lives through the call.
        check("cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&raw mut count) })
    });
    counted.map_or(0, |()| count.max(0) as usize)
}

/// The card's primary context, which CubeCL uses too; kept for the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context(sys::CUcontext);

#[expect(unsafe_code, reason = "a context may be used from any thread")]
// SAFETY: the driver's contexts are not bound to a thread; each thread makes its own choice of the current one.
unsafe impl Send for Context {}
#[expect(unsafe_code, reason = "as above")]
// SAFETY: as above.
unsafe impl Sync for Context {}

#[expect(unsafe_code, reason = "calls the driver")]
impl Context {
    pub(crate) fn of(device: sys::CUdevice) -> Result<Self> {
        let mut context = std::ptr::null_mut();
        // SAFETY: the pointer is to a variable that lives through the call.
        check("cuDevicePrimaryCtxRetain", unsafe {
            sys::cuDevicePrimaryCtxRetain(&raw mut context, device)
        })?;
        Ok(Self(context))
    }

    /// Makes it the current one of this thread.
    pub(crate) fn enter(self) -> Result<()> {
        // SAFETY: the context was retained and is never released.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.0) })
    }
}

/// A stream of our own, beside burn's.
#[derive(Debug)]
pub(crate) struct OwnStream(pub(crate) Stream);

#[expect(unsafe_code, reason = "a stream may be used from any thread")]
// SAFETY: the driver's streams are not bound to a thread.
unsafe impl Send for OwnStream {}
#[expect(unsafe_code, reason = "as above")]
// SAFETY: the driver's calls may be made by several threads at once.
unsafe impl Sync for OwnStream {}

#[expect(unsafe_code, reason = "calls the driver")]
impl OwnStream {
    pub(crate) fn new() -> Result<Self> {
        let mut stream = std::ptr::null_mut();
        let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the pointer is to a variable that lives through the call.
        check("cuStreamCreate", unsafe { sys::cuStreamCreate(&raw mut stream, flags) })?;
        Ok(Self(stream))
    }

    /// Waits for everything in it.
    pub(crate) fn wait(&self) -> Result<()> {
        // SAFETY: the stream is alive.
        check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.0) })
    }
}

#[expect(unsafe_code, reason = "calls the driver")]
impl Drop for OwnStream {
    fn drop(&mut self) {
        // SAFETY: the stream is ours and not used again; the driver finishes what is in it.
        let _ = unsafe { sys::cuStreamDestroy_v2(self.0) };
    }
}

/// Waits for everything on the card.
#[expect(unsafe_code, reason = "calls the driver")]
pub(crate) fn synchronize() -> Result<()> {
    // SAFETY: no conditions.
    check("cuCtxSynchronize", unsafe { sys::cuCtxSynchronize() })
}

/// A function of a loaded module, with what a launch must know.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) function: sys::CUfunction,
    /// Bytes of each parameter; `None` where the driver is too old to say.
    pub(crate) parameters: Option<Vec<usize>>,
}

/// Loads a binary; it stays for the process.
#[expect(unsafe_code, reason = "calls the driver")]
pub(crate) fn load_module(image: &[u8]) -> Result<sys::CUmodule> {
    let mut module = std::ptr::null_mut();
    // SAFETY: NVRTC wrote the image, and its checksum was compared; the driver copies it.
    check("cuModuleLoadData", unsafe { sys::cuModuleLoadData(&raw mut module, image.as_ptr().cast()) })?;
    Ok(module)
}

/// The function `entry` of a module.
#[expect(unsafe_code, reason = "calls the driver")]
pub(crate) fn function(module: sys::CUmodule, entry: &str) -> Result<Loaded> {
    let name = CString::new(entry).expect("our names have no zero bytes");
    let mut function = std::ptr::null_mut();
    // SAFETY: modules are never unloaded, and the name lives through the call.
    check("cuModuleGetFunction", unsafe {
        sys::cuModuleGetFunction(&raw mut function, module, name.as_ptr())
    })?;
    let mut version = 0;
    // SAFETY: the pointer is to a variable that lives through the call.
    check("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&raw mut version) })?;
    // The call that reports parameters came with 12.4; looking it up in an older driver would panic.
    let parameters = (version >= 12_040).then(|| {
        let size = |index| {
            let (mut offset, mut size) = (0, 0);
            // SAFETY: the function is valid, the pointers are to variables that live through the call.
            let result = unsafe { sys::cuFuncGetParamInfo(function, index, &raw mut offset, &raw mut size) };
            (result == sys::CUresult::CUDA_SUCCESS).then_some(size)
        };
        (0..).map_while(size).collect()
    });
    Ok(Loaded { function, parameters })
}

/// Allows a function to use more than 48 KB of dynamic shared memory.
#[expect(unsafe_code, reason = "calls the driver")]
pub(crate) fn allow_shared(function: sys::CUfunction, bytes: u32) -> Result<()> {
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: functions live for the process.
    check("cuFuncSetAttribute", unsafe { sys::cuFuncSetAttribute(function, attribute, bytes as i32) })
}

/// Asks that a multiprocessor that runs the function has this share of its memory, in percent, as shared memory.
#[expect(unsafe_code, reason = "calls the driver")]
pub(crate) fn prefer_shared(function: sys::CUfunction, percent: i32) -> Result<()> {
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
    // SAFETY: functions live for the process.
    check("cuFuncSetAttribute", unsafe { sys::cuFuncSetAttribute(function, attribute, percent) })
}

/// Sets bytes, on the stream.
#[expect(unsafe_code, reason = "calls the driver")]
pub(crate) fn memset(stream: Stream, to: u64, value: u8, bytes: usize) -> Result<()> {
    // SAFETY: the caller holds the buffer of at least this size until the stream is past it.
    check("cuMemsetD8Async", unsafe { sys::cuMemsetD8Async(to, value, bytes, stream) })
}

/// Copies on the device, on the stream.
#[expect(unsafe_code, reason = "calls the driver")]
pub(crate) fn copy(stream: Stream, to: u64, from: u64, bytes: usize) -> Result<()> {
    // SAFETY: the caller holds both buffers of at least this size until the stream is past it.
    check("cuMemcpyDtoDAsync", unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, stream) })
}

/// Copies from the host, on the stream.
///
/// A pageable source is copied before this returns; a pinned one must stay as it is until the stream is past it.
#[expect(unsafe_code, reason = "calls the driver")]
pub(crate) fn copy_from_host(stream: Stream, to: u64, from: &[u8]) -> Result<()> {
    let source: *const c_void = from.as_ptr().cast();
    // SAFETY: the caller holds the device's buffer of at least this size; see above for the source.
    check("cuMemcpyHtoDAsync", unsafe { sys::cuMemcpyHtoDAsync_v2(to, source, from.len(), stream) })
}

/// Copies to the host, behind what is on the stream, and waits.
#[expect(unsafe_code, reason = "calls the driver")]
pub(crate) fn copy_to_host(stream: Stream, to: &mut [u8], from: u64) -> Result<()> {
    // SAFETY: the caller holds the device's buffer of at least this size, and the host's lives through the wait.
    check("cuMemcpyDtoHAsync", unsafe {
        sys::cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from, to.len(), stream)
    })?;
    // SAFETY: the stream is alive.
    check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(stream) })
}

/// Free and all memory of the card, in bytes.
#[expect(unsafe_code, reason = "calls the driver")]
pub(crate) fn memory() -> Result<(usize, usize)> {
    let (mut free, mut total) = (0, 0);
    // SAFETY: the pointers are to variables that live through the call.
    check("cuMemGetInfo", unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) })?;
    Ok((free, total))
}

/// Device memory outside CubeCL's pools, for a moment.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) address: u64,
}

#[expect(unsafe_code, reason = "calls the driver")]
impl Scratch {
    pub(crate) fn new(bytes: usize) -> Result<Self> {
        let mut address = 0;
        // SAFETY: the pointer is to a variable that lives through the call.
        check("cuMemAlloc", unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes) })?;
        Ok(Self { address })
    }
}

#[expect(unsafe_code, reason = "calls the driver")]
impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once; the driver waits for work that uses it.
        let _ = unsafe { sys::cuMemFree_v2(self.address) };
    }
}
