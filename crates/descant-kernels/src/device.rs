//! Which form of an operator a device gets.

use burn::backend::DispatchDevice;
use burn::tensor::{DType, Device};
use descant_quant::Packing;

/// The body of a method of a value that only a card's build has: `$answer` there, and elsewhere `$nothing`, which there
/// cannot be.
macro_rules! only_on_a_card {
    ($nothing:expr, ($($argument:ident),*), $answer:expr) => {{
        cfg_select! {
            feature = "cuda" => $answer,
            _ => {{
                let _ = ($($argument,)*);
                match $nothing {}
            }}
        }
    }};
}
pub(crate) use only_on_a_card;

/// Whether `device` is burn's CPU backend, for which the operators have their own form.
pub fn is_cpu(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// Whether `device` is a CUDA card, for which the operators have their own form on bf16 activations.
pub fn is_cuda(device: &Device) -> bool {
    cfg_select! {
        feature = "cuda" => crate::cuda::index_of(device).is_some(),
        _ => {{
            let _ = device;
            false
        }}
    }
}

/// Whether the kernels that multiply packed experts on this device want the rows of tokens copied in the order of their
/// experts, as Hopper's do.
pub fn wants_rows_in_order(device: &Device) -> bool {
    cfg_select! {
        feature = "cuda" => crate::cuda::index_of(device)
            .and_then(|index| crate::cuda::Gpu::of(index).ok())
            .is_some_and(|gpu| crate::op::experts::cuda::wants_order(&gpu)),
        _ => is_cuda(device),
    }
}

/// Begins to make the kernels that a model with heads of this width, so many queries a key and experts of this packing
/// will want, beside whatever else is done; nothing waits. Does nothing where a device compiles none.
pub fn compile_ahead(device: &Device, head_dim: usize, group: usize, packing: Packing) {
    #[cfg(feature = "cuda")]
    if let Some(gpu) = crate::cuda::index_of(device).and_then(|index| crate::cuda::Gpu::of(index).ok()) {
        gpu.compile_ahead(crate::cuda::wanted::Model { head_dim, group, packing });
    }
    let _ = (device, head_dim, group, packing);
}

/// Whether threads of [`compile_ahead`] are at work. A process that ends now waits for the files that they have at hand, some
/// seconds; who has nothing else to do at its end may leave without what libraries do there.
pub fn is_compiling() -> bool {
    #[cfg(feature = "cuda")]
    return crate::cuda::would_wait();
    #[cfg(not(feature = "cuda"))]
    false
}

/// Whether an operator on activations of this type has a form of its own here; elsewhere its definition runs.
pub(crate) fn has_form(device: &Device, dtype: DType) -> bool {
    has_form_if(device, dtype, true)
}

/// The same for an operator whose kernels move 16 bytes at a time, which not all sizes fit.
pub(crate) fn has_form_if(device: &Device, dtype: DType, fits: bool) -> bool {
    is_cpu(device) || (fits && dtype == DType::BF16 && is_cuda(device))
}
