//! How much of a device's memory the operators may use, and for what.
//!
//! One setting a device, made before the first step and read when buffers are planned. The CPU plans nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;

use crate::layer::Keep;

/// What a device may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemorySettings {
    /// Most bytes in use on the card, the driver's own included; all of it when `None`.
    pub limit: Option<u64>,
    /// What layers keep from forward to backward.
    pub keep: Keep,
    /// Bytes that others will still ask for: gradients, the optimizer.
    pub reserved: u64,
}

static SETTINGS: Mutex<BTreeMap<String, MemorySettings>> = Mutex::new(BTreeMap::new());

/// Sets what a device may use; what was reserved stays.
pub fn set_memory(device: &Device, limit: Option<u64>, keep: Keep) {
    change(device, |settings| (settings.limit, settings.keep) = (limit, keep));
}

/// Leaves bytes free for those who will ask for them later: gradients, the optimizer.
pub fn reserve_memory(device: &Device, bytes: u64) {
    change(device, |settings| settings.reserved = bytes);
}

fn change(device: &Device, f: impl FnOnce(&mut MemorySettings)) {
    f(SETTINGS.lock().unwrap_or_else(PoisonError::into_inner).entry(key(device)).or_default());
}

/// What a device may use: what was set, or all of it.
pub fn memory_settings(device: &Device) -> MemorySettings {
    SETTINGS.lock().unwrap_or_else(PoisonError::into_inner).get(&key(device)).copied().unwrap_or_default()
}

/// How a device's working memory is laid out, in words for people; `None` before the first step and on the CPU. It is
/// planned when the first layer runs, and again when a longer batch comes.
pub fn memory_plan(device: &Device) -> Option<String> {
    #[cfg(feature = "cuda")]
    if let Some(index) = crate::cuda::index_of(device) {
        return crate::layer::arena::words(index);
    }
    let _ = device;
    None
}

/// What the card of this index may use.
#[cfg(feature = "cuda")]
pub(crate) fn settings_of_card(index: usize) -> MemorySettings {
    let key = card_key(index);
    SETTINGS.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied().unwrap_or_default()
}

#[cfg(feature = "cuda")]
fn card_key(index: usize) -> String {
    format!("cuda:{index}")
}

fn key(device: &Device) -> String {
    #[cfg(feature = "cuda")]
    if let Some(index) = crate::cuda::index_of(device) {
        return card_key(index);
    }
    format!("{:?}", device.clone().inner())
}
