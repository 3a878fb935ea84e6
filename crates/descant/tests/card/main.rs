//! The whole model on a CUDA card: bf16 there against f32 on the CPU, which the golden tests hold to transformers.
//!
//! `DESCANT_CARD=1` makes a missing card a failure. The fast form (a whole layer as one operator) is compared with
//! the CPU and with the layer put together from single operators on the same card; buffers are poisoned first, so
//! that nothing is read that was not written.

#![expect(clippy::print_stdout, reason = "the differences are what the reader of a run on a card wants")]

mod compare;
mod models;
mod repeat;

use burn::tensor::Device;
use descant_kernels::cuda::Gpu;

/// The first card with poisoned buffers, or nothing.
fn card() -> Option<Device> {
    match Gpu::of(0) {
        Ok(_) => {
            descant_kernels::cuda::poison_buffers(true);
            Some(Device::cuda(0))
        }
        Err(error) => {
            assert!(std::env::var_os("DESCANT_CARD").is_none(), "{error}");
            println!("no card, nothing compared: {error}");
            None
        }
    }
}
