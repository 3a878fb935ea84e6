//! What can go wrong between us and the card, with what a person can do about it.
//!
//! The libraries' own codes are kept: what an error means is decided by them and never by words.

use cudarc::cublaslt::sys::cublasStatus_t;
use cudarc::driver::sys::CUresult;

use super::library::{Library, is_there};

/// The driver's function that pins host memory.
pub(crate) const PIN: &str = "cuMemHostRegister";

/// A failure of the driver, the compiler, cuBLASLt, or of our own use of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// A library that is looked up when the program runs is not there.
    #[error("the library {library} was not found")]
    NoLibrary {
        /// Which one.
        library: Library,
    },
    /// The driver refused a call.
    #[error("{call}: {text}")]
    Driver {
        /// The driver's function.
        call: &'static str,
        /// The driver's code.
        code: CUresult,
        /// The driver's own words.
        text: String,
    },
    /// A kernel file did not compile.
    #[error("kernel file `{unit}` does not compile for {architecture}:\n{log}")]
    Compile {
        /// The file's name in the table.
        unit: &'static str,
        /// For which architecture.
        architecture: String,
        /// The compiler's own words.
        log: String,
    },
    /// The compiler refused a call for another reason than the text.
    #[error("{call}: {text}")]
    Nvrtc {
        /// The compiler's function.
        call: &'static str,
        /// The compiler's own words.
        text: String,
    },
    /// The process ends, and nothing is compiled any more.
    #[error("the process ends")]
    Ending,
    /// cuBLASLt refused a call.
    #[error("{call}: {status:?} ({product})")]
    Blas {
        /// The library's function.
        call: &'static str,
        /// The library's code.
        status: cublasStatus_t,
        /// The product that was asked for.
        product: String,
    },
    /// NCCL refused a call, or another card failed.
    #[error("{call}: {text}")]
    Nccl {
        /// The library's function.
        call: &'static str,
        /// The library's own words.
        text: String,
    },
    /// A name that the table of kernel files does not have.
    #[error("there is no kernel file `{unit}`")]
    NoUnit {
        /// The name.
        unit: String,
    },
    /// A launch whose arguments are not those of the kernel.
    #[error("kernel `{kernel}`: {what}")]
    Arguments {
        /// The kernel's name.
        kernel: &'static str,
        /// What differs.
        what: String,
    },
    /// A product that cannot be described, or has no algorithm.
    #[error("product {product}: {what}")]
    Product {
        /// The product that was asked for.
        product: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A buffer of a layer that holds nothing in the phase that asked for it.
    #[error("a layer's buffer {buffer} is not alive in {phase}")]
    NotAlive {
        /// The buffer.
        buffer: String,
        /// The phase.
        phase: String,
    },
    /// More memory would be in use on the card than may be.
    #[error("the limit of the card's memory would be broken: {wanted} bytes in use, {allowed} allowed")]
    Limit {
        /// With what is in use and what is asked for.
        wanted: u64,
        /// The limit that was set, or the card's memory.
        allowed: u64,
    },
    /// The card has less left than is wanted.
    #[error("the card is full: {wanted} bytes more are wanted, and {free} are free")]
    Full {
        /// What is asked for.
        wanted: u64,
        /// What nobody has.
        free: u64,
    },
    /// The system has no pages left for host memory beside a card.
    #[error("{bytes} bytes of host memory: {text}")]
    Pages {
        /// How many.
        bytes: usize,
        /// The system's words.
        text: String,
    },
    /// No kernel was written for what was asked on this card.
    #[error("{operator} has no kernel for {what}")]
    NoKernel {
        /// The operator.
        operator: &'static str,
        /// What is missing.
        what: String,
    },
    /// The memory that layers work in does not serve what was asked.
    #[error("the layers' memory: {0}")]
    Workspace(String),
    /// CubeCL, which owns memory and stream, refused.
    #[error("CubeCL: {text}")]
    Backend {
        /// Its own words.
        text: String,
        /// Whether the card's memory was full.
        out_of_memory: bool,
    },
    /// Our own code panicked on CubeCL's thread, where it must not pass.
    #[error("a launch panicked: {text}")]
    Panicked {
        /// The panic's message.
        text: String,
    },
}

impl CudaError {
    /// What a person can do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoLibrary { library: Library::Driver } => {
                Some("install NVIDIA's driver, or choose the device `cpu`")
            }
            Self::NoLibrary { library: Library::Nvrtc } => Some(
                "install CUDA 12.8 or later, or `pip install nvidia-cuda-nvrtc`, and put the folder of \
                 libnvrtc.so on LD_LIBRARY_PATH",
            ),
            Self::NoLibrary { library: Library::CublasLt } => Some(
                "install CUDA 12.8 or later, or `pip install nvidia-cublas`, and put the folder of \
                 libcublasLt.so on LD_LIBRARY_PATH",
            ),
            Self::NoLibrary { library: Library::Nccl } => Some(
                "install NCCL 2 (`pip install nvidia-nccl-cu13`, or the package libnccl2), and put the folder of \
                 libnccl.so.2 on LD_LIBRARY_PATH; a run with one card needs none",
            ),
            Self::Driver {
                code: CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION | CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU,
                ..
            } => Some("the driver is older than the run-time compiler: update it, or use an older CUDA"),
            Self::Driver { call: PIN, .. } => Some(
                "the host has no such memory to pin: free some, raise the limit of locked memory (`ulimit -l`) or of the \
                 container, or raise --memory so that fewer layers lie on the host",
            ),
            Self::Limit { .. } => {
                Some("raise the limit, or use a smaller batch; `descant plan` says what fits")
            }
            _ if self.is_out_of_memory() => {
                Some("another program may hold memory of the card; else use a smaller batch")
            }
            _ => None,
        }
    }

    /// Whether the card's memory was full.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Self::Driver { code, .. } => *code == CUresult::CUDA_ERROR_OUT_OF_MEMORY,
            Self::Blas { status, .. } => *status == cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED,
            Self::Backend { out_of_memory, .. } => *out_of_memory,
            Self::Limit { .. } | Self::Full { .. } => true,
            _ => false,
        }
    }

    /// Whether the system has no such host memory to pin, or does not give it away for that: then it can lie in pages
    /// that are not pinned.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn refuses_to_pin(&self) -> bool {
        use CUresult as Code;
        let Self::Driver { call: PIN, code, .. } = self else { return false };
        matches!(
            code,
            Code::CUDA_ERROR_OUT_OF_MEMORY
                | Code::CUDA_ERROR_OPERATING_SYSTEM
                | Code::CUDA_ERROR_NOT_SUPPORTED
                | Code::CUDA_ERROR_NOT_PERMITTED
        )
    }

    /// CubeCL's refusal for another reason than memory.
    #[cfg(feature = "cuda")]
    pub(crate) fn backend(text: impl Into<String>) -> Self {
        Self::Backend { text: text.into(), out_of_memory: false }
    }
}

/// Results of this module.
pub type Result<T> = std::result::Result<T, CudaError>;

/// An error where a library is not there.
///
/// # Errors
/// It is not found.
pub fn require(library: Library) -> Result<()> {
    if is_there(library) { Ok(()) } else { Err(CudaError::NoLibrary { library }) }
}

/// A panic as an error: on CubeCL's thread it would end the thread, and the process would wait for ever.
#[cfg(any(feature = "cuda", test))]
pub(crate) fn guarded<R>(f: impl FnOnce() -> Result<R>) -> Result<R> {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(CudaError::Panicked { text: text.to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        let panicked = |f: fn() -> Result<()>| match guarded(f) {
            Err(CudaError::Panicked { text }) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(panicked(|| panic!("plain")), "plain");
        assert_eq!(panicked(|| panic!("{}", 5)), "5");
        assert_eq!(guarded(|| Ok(3)), Ok(3));
    }

    #[test]
    fn a_missing_library_is_named_and_has_a_hint() {
        for library in [Library::Driver, Library::Nvrtc, Library::CublasLt] {
            let error = CudaError::NoLibrary { library };
            assert!(error.to_string().contains("lib"), "{error}");
            assert!(error.to_string().contains("was not found"), "{error}");
            assert!(error.hint().is_some());
            // On a machine without CUDA this is the error itself; nothing panics either way.
            assert!(require(library).is_ok() || require(library) == Err(error));
        }
    }

    #[test]
    fn a_refusal_to_pin_is_known_by_call_and_code() {
        let driver = |call, code| CudaError::Driver { call, code, text: "words decide nothing".to_owned() };
        for code in [CUresult::CUDA_ERROR_OUT_OF_MEMORY, CUresult::CUDA_ERROR_OPERATING_SYSTEM] {
            assert!(driver(PIN, code).refuses_to_pin());
            assert!(!driver("cuMemAlloc", code).refuses_to_pin(), "the card is full, not the host");
        }
        // What breaks the context is not a refusal, and must not be taken for one.
        assert!(!driver(PIN, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS).refuses_to_pin());
        assert!(!CudaError::Full { wanted: 2, free: 1 }.refuses_to_pin());
        assert!(CudaError::Full { wanted: 2, free: 1 }.is_out_of_memory());
    }

    #[test]
    fn running_out_of_memory_has_a_hint_and_a_wrong_argument_has_none() {
        // The words are the other error's: they decide nothing.
        let driver = |code, text: &str| CudaError::Driver { call: "cuMemAlloc", code, text: text.to_owned() };
        let full = driver(CUresult::CUDA_ERROR_OUT_OF_MEMORY, "invalid argument");
        assert!(full.is_out_of_memory() && full.hint().is_some());
        let wrong = driver(CUresult::CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_OUT_OF_MEMORY");
        assert!(!wrong.is_out_of_memory() && wrong.hint().is_none());
        let (code, text) = (CUresult::CUDA_ERROR_OUT_OF_MEMORY, String::new());
        let host = CudaError::Driver { call: PIN, code, text };
        assert!(host.is_out_of_memory() && host.hint().is_some_and(|hint| hint.contains("host")));
    }
}
