//! NCCL's functions, found by name when the program runs.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

use cudarc::driver::sys::CUstream;
use libloading::Library as Shared;

use crate::cuda::error::{CudaError, Result};
use crate::cuda::library::{Library, NCCL};

/// NCCL's number for f32.
pub(super) const FLOAT32: c_int = 7;
/// NCCL's status where all is well, and where it is still at work.
pub(super) const SUCCESS: c_int = 0;
const IN_PROGRESS: c_int = 7;
/// What tells one group of cards from another; made by one of them and given to all.
pub(super) const ID_BYTES: usize = 128;

/// A name of a group.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct UniqueId(pub(super) [u8; ID_BYTES]);

/// Its handle of a group.
pub(super) type Comm = *mut c_void;

/// The library's functions, by their names in `nccl.h`.
pub(super) struct Nccl {
    pub(super) version: unsafe extern "C" fn(*mut c_int) -> c_int,
    pub(super) unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    pub(super) init_rank: unsafe extern "C" fn(*mut Comm, c_int, UniqueId, c_int) -> c_int,
    pub(super) abort: unsafe extern "C" fn(Comm) -> c_int,
    pub(super) async_error: unsafe extern "C" fn(Comm, *mut c_int) -> c_int,
    pub(super) error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    pub(super) broadcast:
        unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, CUstream) -> c_int,
    pub(super) group_start: unsafe extern "C" fn() -> c_int,
    pub(super) group_end: unsafe extern "C" fn() -> c_int,
    /// Never unloaded: the functions are used until the process ends.
    _library: Shared,
}

#[expect(unsafe_code, reason = "calls NCCL")]
impl Nccl {
    pub(super) fn get() -> Result<&'static Self> {
        static FOUND: OnceLock<Result<Nccl>> = OnceLock::new();
        FOUND.get_or_init(|| Self::find(&NCCL)).as_ref().map_err(Clone::clone)
    }

    /// The library under the first of these names that is there.
    fn find(names: &[&str]) -> Result<Self> {
        for name in names {
            // SAFETY: this is NVIDIA's own library under its fixed name; its initializers have no conditions.
            if let Ok(library) = unsafe { Shared::new(*name) } {
                return Self::of(name, library);
            }
        }
        Err(CudaError::NoLibrary { library: Library::Nccl })
    }

    fn of(file: &str, library: Shared) -> Result<Self> {
        macro_rules! named {
            ($name:literal) => {
                // SAFETY: the type is that of the function in nccl.h, which has kept it since 2.0 (abort: 2.4).
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }.map_err(|_| CudaError::Nccl {
                    call: $name,
                    text: format!("{file} does not have it; NCCL 2.4 or later is needed"),
                })?
            };
        }
        Ok(Self {
            version: named!("ncclGetVersion"),
            unique_id: named!("ncclGetUniqueId"),
            init_rank: named!("ncclCommInitRank"),
            abort: named!("ncclCommAbort"),
            async_error: named!("ncclCommGetAsyncError"),
            error_string: named!("ncclGetErrorString"),
            broadcast: named!("ncclBroadcast"),
            group_start: named!("ncclGroupStart"),
            group_end: named!("ncclGroupEnd"),
            _library: library,
        })
    }

    pub(super) fn check(&self, call: &'static str, status: c_int) -> Result<()> {
        if status == SUCCESS || status == IN_PROGRESS {
            return Ok(());
        }
        // SAFETY: the library returns a text of its own for every number.
        let text = unsafe { (self.error_string)(status) };
        let text = if text.is_null() {
            format!("status {status}")
        } else {
            // SAFETY: it is not null, ends with a zero, and lives as long as the library.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        Err(CudaError::Nccl { call, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let absent = Nccl::find(&["libnccl-of-nobody.so.2", "libnccl-of-nobody.so"]).err().unwrap();
        assert_eq!(absent, CudaError::NoLibrary { library: Library::Nccl });
        assert!(absent.to_string().contains("libnccl.so.2"), "{absent}");
        assert!(absent.hint().unwrap().contains("LD_LIBRARY_PATH"));
        // A library of that name that is none.
        let other = Nccl::find(&["libnccl-of-nobody.so.2", "libm.so.6"]).err().unwrap();
        assert!(other.to_string().contains("ncclGetVersion: libm.so.6 does not have it"), "{other}");
    }
}
