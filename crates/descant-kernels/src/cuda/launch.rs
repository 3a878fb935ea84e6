//! Kernels of a card: compiled or loaded at first use, kept for the process, launched with checked arguments.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::driver::sys;

use super::architecture::Architecture;
use super::args::{Arg, Extent, mismatch, pack};
use super::driver::{self, Loaded, Stream};
use super::error::{CudaError, Result};
use super::table::{Define, Unit, unit};
use super::{nvrtc, store};

/// Files whose kernels follow each other closely, and the percentage of a multiprocessor's memory that all of them want
/// as shared memory: a multiprocessor must be empty to change that, so that kernels of different wishes could not run
/// beside each other. 164 of 228 KB on Hopper leave as much cache as loads on their way take.
const TOGETHER: &str = "decode/";
const SHARED_PERCENT: i32 = 72;

/// A kernel, ready to launch.
#[derive(Debug)]
pub struct Function {
    name: &'static str,
    loaded: Loaded,
    /// Dynamic shared memory that was allowed so far.
    shared: AtomicU32,
}

#[expect(unsafe_code, reason = "a function handle may be used from any thread")]
// SAFETY: the driver's function handles are not bound to a thread, and modules are never unloaded.
unsafe impl Send for Function {}
#[expect(unsafe_code, reason = "as above")]
// SAFETY: as above; what changes is atomic.
unsafe impl Sync for Function {}

/// All kernels of one card.
#[derive(Debug, Default)]
pub(crate) struct Kernels {
    cache: Mutex<Cache>,
    /// Binaries by the name under which they are kept; whoever asks while one is made waits for it.
    images: Mutex<BTreeMap<String, Arc<OnceLock<Result<Image>>>>>,
}

#[derive(Debug, Default)]
struct Cache {
    modules: BTreeMap<(&'static str, Vec<Define>), Module>,
    /// By file and entry, and there by constants: looking one up allocates nothing.
    functions: BTreeMap<(&'static str, &'static str), Vec<Variant>>,
}

/// What the compiler makes of a file.
type Image = Arc<[u8]>;

/// A function compiled with these constants.
type Variant = (Vec<Define>, &'static Function);

#[derive(Debug, Clone, Copy)]
struct Module(sys::CUmodule);

#[expect(unsafe_code, reason = "a module handle may be used from any thread")]
// SAFETY: the driver's module handles are not bound to a thread.
unsafe impl Send for Module {}

impl Kernels {
    /// The function `entry` of a file compiled with these constants.
    pub(crate) fn get(
        &self,
        architecture: Architecture,
        id: &'static str,
        entry: &'static str,
        defines: &[Define],
    ) -> Result<&'static Function> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let known = cache
            .functions
            .get(&(id, entry))
            .and_then(|all| all.iter().find(|(known, _)| known == defines).map(|(_, function)| *function));
        if let Some(function) = known {
            return Ok(function);
        }
        let key = (id, defines.to_vec());
        let module = if let Some(module) = cache.modules.get(&key) {
            *module
        } else {
            let module = Module(self.load(architecture, id, defines)?);
            cache.modules.insert(key, module);
            module
        };
        let loaded = driver::function(module.0, entry)?;
        if id.starts_with(TOGETHER) {
            driver::prefer_shared(loaded.function, SHARED_PERCENT)?;
        }
        // A few functions a process, needed until its end.
        let function: &'static Function =
            Box::leak(Box::new(Function { name: entry, loaded, shared: AtomicU32::new(0) }));
        cache.functions.entry((id, entry)).or_default().push((defines.to_vec(), function));
        Ok(function)
    }
}

impl Kernels {
    /// The module of a file.
    fn load(&self, architecture: Architecture, id: &str, defines: &[Define]) -> Result<sys::CUmodule> {
        let unit = unit(id).ok_or_else(|| CudaError::NoUnit { unit: id.to_owned() })?;
        let image = self.image(architecture, unit, defines)?;
        driver::load_module(&image).or_else(|_| {
            // A kept binary that this driver refuses is made again.
            let options = nvrtc::options(architecture, defines, false);
            let image = nvrtc::compile(unit, architecture, &options)?.image;
            let module = driver::load_module(&image)?;
            store::save(&nvrtc::key(unit, &options, nvrtc::version()?), &image);
            Ok(module)
        })
    }

    /// The binary of a file, from the store or the compiler; made once, whoever asks.
    pub(crate) fn image(
        &self,
        architecture: Architecture,
        unit: &'static Unit,
        defines: &[Define],
    ) -> Result<Image> {
        let options = nvrtc::options(architecture, defines, false);
        let key = nvrtc::key(unit, &options, nvrtc::version()?);
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let image = Arc::clone(images.entry(key.clone()).or_default());
        drop(images);
        let make = || {
            if let Some(kept) = store::load(&key) {
                return Ok(kept.into());
            }
            let image = nvrtc::compile(unit, architecture, &options)?.image;
            store::save(&key, &image);
            Ok(image.into())
        };
        image.get_or_init(make).clone()
    }
}

/// Puts a kernel on the stream. An empty grid launches nothing and is not an error.
pub(crate) fn launch(
    stream: Stream,
    function: &Function,
    grid: Extent,
    block: Extent,
    shared_bytes: u32,
    arguments: &[Arg],
    is_early: bool,
) -> Result<()> {
    if let Some(parameters) = &function.loaded.parameters
        && let Some(what) = mismatch(arguments, parameters)
    {
        return Err(CudaError::Arguments { kernel: function.name, what });
    }
    if grid.is_empty() {
        return Ok(());
    }
    if shared_bytes > function.shared.load(Ordering::Relaxed) {
        driver::allow_shared(function.loaded.function, shared_bytes)?;
        function.shared.store(shared_bytes, Ordering::Relaxed);
    }
    let mut packed = pack(arguments);
    let ([gx, gy, gz], [bx, by, bz]) = (grid.0, block.0);
    #[expect(unsafe_code, reason = "calls the driver")]
    // SAFETY: the addresses lead to `arguments`, whose number and sizes are the kernel's; the driver copies them.
    // That pointers lead to buffers of the right size and life is for the operator to say.
    let result = unsafe {
        let mut early: sys::CUlaunchAttribute = std::mem::zeroed();
        early.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        early.value.programmaticStreamSerializationAllowed = 1;
        let config = sys::CUlaunchConfig {
            gridDimX: gx,
            gridDimY: gy,
            gridDimZ: gz,
            blockDimX: bx,
            blockDimY: by,
            blockDimZ: bz,
            sharedMemBytes: shared_bytes,
            hStream: stream,
            attrs: &raw mut early,
            numAttrs: u32::from(is_early),
        };
        let (function, no_extra) = (function.loaded.function, std::ptr::null_mut());
        sys::cuLaunchKernelEx(&raw const config, function, packed.as_mut_ptr(), no_extra)
    };
    driver::check("cuLaunchKernelEx", result).map_err(|error| match error {
        CudaError::Driver { call, code, text } => CudaError::Driver {
            call,
            code,
            text: format!(
                "{text} (kernel `{}`, grid {gx}x{gy}x{gz}, block {bx}x{by}x{bz}, {shared_bytes} B shared)",
                function.name
            ),
        },
        other => other,
    })
}
