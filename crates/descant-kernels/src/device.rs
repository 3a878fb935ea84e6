//! Which form of an operator a device gets.

use burn::backend::DispatchDevice;
use burn::tensor::Device;

/// Whether `device` is burn's CPU backend, for which the operators have their own form.
pub fn is_cpu(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Flex(_))
}
