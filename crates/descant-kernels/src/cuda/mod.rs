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

#[cfg(any(feature = "cuda", test))]
mod cap;
#[cfg(any(feature = "cuda", test))]
pub mod nccl;

cfg_select! {
    feature = "cuda" => {
        mod ahead;
        mod blas;
        pub(crate) mod boxes;
        mod brake;
        mod driver;
        mod event;
        pub(crate) mod gauge;
        mod gpu;
        pub(crate) mod graph;
        mod host;
        mod interop;
        mod launch;
        mod lt;
        mod memory;
        mod queue;
        mod recorder;
        mod routing;
        mod run;
        mod tensor;
        mod testing;
        mod upload;

        pub(crate) use blas::Matrices;
        pub(crate) use brake::Brake;
        pub(crate) use cap::Limited;
        pub use driver::cards;
        pub(crate) use driver::{OwnStream, Stream, copy_from_host, copy_to_host};
        pub(crate) use ending::would_wait;
        pub(crate) use event::{Event, StreamOrder};
        pub use gpu::Gpu;
        pub(crate) use host::{HostMemory, HostRoom, HostStore};
        pub use interop::InPlace;
        pub use launch::Function;
        pub(crate) use memory::DeviceMemory;
        pub use memory::Occupied;
        pub use routing::take_routing;
        pub use run::Run;
        pub use tensor::{
            Kind, contiguous, empty, empty_within, floats, gpu_of, gpu_of_device, halves, handles, index_of, matrix,
            owned, primitive, tensor, zeros,
        };
        pub(crate) use tensor::{filled, joined, poison, read, read_all, read_bytes, read_indices};
        pub(crate) use testing::watches_routing;
        pub use testing::{pin_at_most, poison_buffers, portable_kernels, watch_routing};
        pub use upload::Uploader;
    }
    _ => {}
}

pub use args::{Arg, Extent, TensorMap};
pub use error::{CudaError, Result};
pub use spec::{Element, MatmulSpec, Operand};
pub use store::{Choices, Entered, Store, set_store};
pub use table::Define;
