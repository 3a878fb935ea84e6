//! What a device gives, measured: the rate of a large product, the rate of a copy, the memory in use, and the time
//! of each operator of a layer. The ceilings that figures of training steps are compared with.
//!
//! Nothing here runs inside a step, except the recording of times while [`profile`] is on.

use std::time::Instant;

use burn::tensor::{DType, Device, Distribution, Tensor};

pub use crate::rates::{CONTEXT, FREE_SHARE, MOST_OF_CONTEXT, OperatorTime, Rates, Shares};
use crate::{DeviceError, FrozenWeight, Groups, linear};

/// What a card answers; `None` on the CPU, and in a build without CUDA, where the question is not compiled.
macro_rules! on_card {
    ($device:ident, $answer:expr) => {{
        cfg_select! {
            feature = "cuda" => (!crate::is_cpu($device)).then(|| $answer),
            _ => {{
                let _ = $device;
                None
            }}
        }
    }};
}

/// Measures the ceilings of a device. Takes a second or two.
pub fn rates(device: &Device) -> Rates {
    on_card!(device, crate::cuda::gauge::rates(device)).unwrap_or_else(|| cpu_rates(device))
}

/// Bytes a second that cross the bus from pinned host memory to a card, measured in a tenth of a second; `None` where
/// there is not a bus, or the system pins no memory.
pub fn bus_rate(device: &Device) -> Option<f64> {
    on_card!(device, crate::cuda::gauge::bus_rate(device)).flatten()
}

/// Bytes of device memory in use on the whole card, `None` where that has no meaning (the CPU).
pub fn memory_in_use(device: &Device) -> Option<u64> {
    on_card!(device, crate::cuda::gauge::memory_in_use(device)).flatten()
}

/// Who has the memory of a card, as far as that is known; `None` where that has no meaning (the CPU).
pub fn shares(device: &Device) -> Option<Shares> {
    on_card!(device, crate::cuda::gauge::shares(device)).flatten()
}

/// The card's name, `None` on the CPU.
pub fn card(device: &Device) -> Option<String> {
    on_card!(device, crate::cuda::gauge::card(device)).flatten()
}

/// Switches the recording of operators' times on or off; on forgets what was recorded. Recording slows a step down
/// a little, so that a step's time and its operators' times are not taken from the same step.
pub fn profile(device: &Device, on: bool) {
    let recorded: Option<()> = on_card!(device, crate::cuda::gauge::profile(device, on));
    let _ = (recorded, on);
}

/// What was recorded, longest first; empty on devices that record nothing.
pub fn profiled(device: &Device) -> Vec<OperatorTime> {
    on_card!(device, crate::cuda::gauge::profiled(device)).unwrap_or_default()
}

/// Waits until the device has done everything that is queued.
///
/// # Errors
/// What went wrong on the device since it was last asked.
pub fn synchronize(device: &Device) -> Result<(), DeviceError> {
    on_card!(device, crate::cuda::gauge::synchronize(device).map_err(DeviceError::from)).unwrap_or(Ok(()))
}

/// Rows, inputs and outputs of the measured product on the CPU.
const CPU_PRODUCT: usize = 1024;
/// Elements of the measured copy on the CPU: 64 MB, beyond the caches.
const CPU_COPY: usize = 16 << 20;
/// Repetitions, of which the best counts.
const REPETITIONS: usize = 5;

fn cpu_rates(device: &Device) -> Rates {
    let n = CPU_PRODUCT;
    let plain = device.clone().inner();
    let random = |shape| Tensor::<2>::random(shape, Distribution::Default, (&plain, DType::F32));
    let (x, weight) = (random([n, n]), FrozenWeight::Dense(random([n, n]).unsqueeze()));
    let product = best(|| drop(linear(x.clone(), &weight, None, &Groups::One)));
    let from = vec![1.0_f32; CPU_COPY];
    let mut to = vec![0.0_f32; CPU_COPY];
    let copy = best(|| std::hint::black_box(&mut to).copy_from_slice(std::hint::black_box(&from)));
    Rates { flops: 2.0 * (n as f64).powi(3) / product, bytes: 8.0 * CPU_COPY as f64 / copy }
}

fn best(mut work: impl FnMut()) -> f64 {
    work();
    let time = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..REPETITIONS).map(time).fold(f64::INFINITY, f64::min)
}
