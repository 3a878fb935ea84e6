//! The whole model on a CUDA card: bf16 there against f32 on the CPU, which the golden tests hold to transformers.
//!
//! They are ignored where none is asked for: `--include-ignored` runs them, and then a missing card is a failure.
//! `DESCANT_CARD=portable` keeps Hopper from its own kernels (for compute-sanitizer's racecheck, which does not know the
//! barriers that those are built on). The fast form (a whole layer as one operator) is compared with the CPU and with the
//! layer put together from single operators on the same card; buffers are poisoned first, so that nothing is read that was
//! not written.

#![expect(clippy::print_stdout, reason = "the differences are what the reader of a run on a card wants")]

mod compare;
mod conversation;
mod decoded;
mod drawn;
mod fp8;
mod fp8_trained;
mod full;
mod golden;
mod in_place;
mod models;
mod placed;
mod repeat;
mod routing;
mod shared;

use burn::tensor::Device;
use descant_kernels::cuda::Gpu;

/// Whether the portable kernels are wanted everywhere.
fn is_portable() -> bool {
    std::env::var_os("DESCANT_CARD").is_some_and(|value| value == "portable")
}

/// The first card, with poisoned buffers.
fn card() -> Device {
    if let Err(error) = Gpu::of(0) {
        panic!("this test needs a card: {error}");
    }
    descant_kernels::cuda::poison_buffers(true);
    descant_kernels::cuda::portable_kernels(is_portable());
    Device::cuda(0)
}
