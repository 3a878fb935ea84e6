//! The shell between our CUDA C++ and burn: compiling, launching, products, streams, errors.
//!
//! With the feature `nvrtc` alone there is the table of kernel files and the compiler, which need no card: the check
//! `cargo xtask kernels` is made of them. With `cuda` there is [`Gpu`], and the operators on it:
//!
//! ```text
//! operator ── Gpu::enqueue ──▶ CubeCL's thread, burn's stream ── Run::kernel, launch, blas ──▶ card
//!                                   │ first error kept
//! reader of a result ◀── Gpu::take_error
//! ```
//!
//! No step waits for the card: kernels are found by name in the process, launches are queued, and an error is
//! reported to whoever reads a result back.

pub mod algorithm;
pub mod architecture;
pub mod args;
mod constants;
mod ending;
pub mod error;
pub mod family;
pub mod geometry;
pub mod library;
pub mod nvrtc;
pub mod plain;
mod program;
pub mod resources;
pub mod spec;
pub mod store;
pub mod structures;
pub mod table;
pub mod wanted;

#[cfg(feature = "cuda")]
mod ahead;
#[cfg(feature = "cuda")]
mod blas;
#[cfg(feature = "cuda")]
pub(crate) mod boxes;
#[cfg(feature = "cuda")]
mod brake;
#[cfg(any(feature = "cuda", test))]
mod cap;
#[cfg(feature = "cuda")]
mod driver;
#[cfg(feature = "cuda")]
mod event;
#[cfg(feature = "cuda")]
pub(crate) mod gauge;
#[cfg(feature = "cuda")]
mod gpu;
#[cfg(feature = "cuda")]
pub(crate) mod graph;
#[cfg(feature = "cuda")]
mod host;
#[cfg(feature = "cuda")]
mod interop;
#[cfg(feature = "cuda")]
mod launch;
#[cfg(feature = "cuda")]
mod lt;
#[cfg(feature = "cuda")]
mod memory;
#[cfg(any(feature = "cuda", test))]
pub mod nccl;
#[cfg(feature = "cuda")]
mod queue;
#[cfg(feature = "cuda")]
mod recorder;
#[cfg(feature = "cuda")]
mod routing;
#[cfg(feature = "cuda")]
mod run;
#[cfg(feature = "cuda")]
mod tensor;
#[cfg(feature = "cuda")]
mod testing;
#[cfg(feature = "cuda")]
mod upload;

pub use args::{Arg, Extent, TensorMap};
pub use error::{CudaError, Result};
pub use spec::{Element, MatmulSpec, Operand};
pub use store::{Choices, Entered, Store, set_store};
pub use table::Define;

#[cfg(feature = "cuda")]
pub(crate) use blas::Matrices;
#[cfg(feature = "cuda")]
pub(crate) use brake::Brake;
#[cfg(feature = "cuda")]
pub(crate) use cap::Limited;
#[cfg(feature = "cuda")]
pub use driver::cards;
#[cfg(feature = "cuda")]
pub(crate) use driver::{OwnStream, Stream, copy_from_host, copy_to_host};
#[cfg(feature = "cuda")]
pub(crate) use event::{Event, StreamOrder};
#[cfg(feature = "cuda")]
pub use gpu::Gpu;
#[cfg(feature = "cuda")]
pub(crate) use host::{HostMemory, HostRoom, HostStore};
#[cfg(feature = "cuda")]
pub use interop::InPlace;
#[cfg(feature = "cuda")]
pub use launch::Function;
#[cfg(feature = "cuda")]
pub(crate) use memory::DeviceMemory;
#[cfg(feature = "cuda")]
pub use memory::Occupied;
#[cfg(feature = "cuda")]
pub use routing::take_routing;
#[cfg(feature = "cuda")]
pub use run::Run;
#[cfg(feature = "cuda")]
pub use tensor::{
    Kind, contiguous, empty, empty_within, floats, gpu_of, gpu_of_device, halves, handles, index_of, matrix,
    owned, primitive, tensor, zeros,
};
#[cfg(feature = "cuda")]
pub(crate) use tensor::{filled, joined, poison, read, read_all, read_bytes, read_indices};
#[cfg(feature = "cuda")]
pub(crate) use testing::watches_routing;
#[cfg(feature = "cuda")]
pub use testing::{pin_at_most, poison_buffers, portable_kernels, watch_routing};
#[cfg(feature = "cuda")]
pub use upload::Uploader;
