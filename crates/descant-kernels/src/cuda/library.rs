//! NVIDIA's libraries, which are looked up when the program runs.

use std::sync::OnceLock;

/// Libraries that are looked up by name when the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// The driver.
    Driver,
    /// The run-time compiler.
    Nvrtc,
    /// Matrix products.
    CublasLt,
    /// Between cards; only runs of several need it.
    Nccl,
}

impl std::fmt::Display for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Driver => "libcuda (NVIDIA's driver)",
            Self::Nvrtc => "libnvrtc (CUDA's run-time compiler)",
            Self::CublasLt => "libcublasLt (CUDA's matrix products)",
            Self::Nccl => "libnccl.so.2 (NCCL, which connects several cards)",
        })
    }
}

/// Names of NCCL, the usual one first.
#[cfg(any(feature = "cuda", test))]
pub(crate) const NCCL: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// Whether a library can be loaded: cudarc panics on first use of one that cannot.
#[expect(unsafe_code, reason = "loading a library runs its initializers")]
pub(super) fn is_there(library: Library) -> bool {
    static FOUND: [OnceLock<bool>; 4] = [const { OnceLock::new() }; 4];
    *FOUND[library as usize].get_or_init(|| match library {
        // SAFETY: these are NVIDIA's own libraries under their fixed names; their initializers have no conditions.
        Library::Driver => unsafe { cudarc::driver::sys::is_culib_present() },
        // SAFETY: as above.
        Library::Nvrtc => unsafe { cudarc::nvrtc::sys::is_culib_present() },
        // SAFETY: as above.
        Library::CublasLt => unsafe { cudarc::cublaslt::sys::is_culib_present() },
        #[cfg(feature = "cuda")]
        // SAFETY: as above.
        Library::Nccl => NCCL.iter().any(|name| unsafe { libloading::Library::new(*name) }.is_ok()),
        #[cfg(not(feature = "cuda"))]
        Library::Nccl => false,
    })
}
