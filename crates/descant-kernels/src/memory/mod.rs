//! How much of a device's memory a model's layers may use, for what, and where it lies.
//!
//! The rows of `table.rs` say what each buffer takes; `layout.rs` gives each a place, `plan.rs` chooses what layers
//! keep, `budget.rs` adds it up, and `arena.rs` holds the piece of a card that they work in. A [`Workspace`] owns
//! settings and memory of one model and ends with it: two models on one card do not see each other's. The CPU plans
//! nothing.

#[cfg(feature = "cuda")]
pub(crate) mod arena;
pub(crate) mod budget;
pub(crate) mod keep;
pub(crate) mod layout;
pub(crate) mod plan;
pub(crate) mod sizes;
pub(crate) mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;

use crate::DeviceError;

pub use budget::{LayerLoad, LayerMemory};
pub use keep::{Keep, Kept};
pub use sizes::LayerSizes;

/// What a model may use on its device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemorySettings {
    /// Most bytes in use on the card, the driver's own included; all of it when `None`.
    pub limit: Option<u64>,
    /// What layers keep from forward to backward.
    pub keep: Keep,
    /// Bytes that others will still ask for: gradients, the optimizer.
    pub reserved: u64,
    /// Tokens that memory is laid out for at least, so that it is not laid out anew for a longer batch.
    pub tokens: usize,
}

/// The settings of one model's memory and, on a card, the memory that its layers work in; cheap to clone.
///
/// Threads may share one: what they queue is ordered on the card, since they use the same bytes.
#[derive(Debug, Clone, Default)]
pub struct Workspace(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    #[cfg(feature = "cuda")]
    order: arena::Order,
}

#[derive(Debug, Default)]
struct State {
    settings: MemorySettings,
    #[cfg(feature = "cuda")]
    arena: Option<arena::Arena>,
}

impl Workspace {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what the layers may use; what was reserved stays.
    pub fn set(&self, limit: Option<u64>, keep: Keep) {
        let settings = &mut self.state().settings;
        (settings.limit, settings.keep) = (limit, keep);
    }

    /// What was set.
    pub fn settings(&self) -> MemorySettings {
        self.state().settings
    }

    /// Leaves bytes free for those who will ask for them later, and lays memory out for so many tokens at least, for
    /// as long as the result lives.
    #[must_use = "what is reserved ends with the result"]
    pub fn reserve(&self, bytes: u64, tokens: usize) -> Reservation {
        let mut state = self.state();
        let before = state.settings.tokens;
        state.settings.reserved += bytes;
        state.settings.tokens = before.max(tokens);
        Reservation { workspace: self.clone(), bytes, tokens_before: before }
    }

    /// Whether no more is in use on the device than the limit says; gives back what burn's pool holds for later first.
    ///
    /// # Errors
    /// More is in use: the limit was not kept.
    pub fn check_limit(&self, device: &Device) -> Result<(), DeviceError> {
        #[cfg(feature = "cuda")]
        if let (Some(limit), false) = (self.settings().limit, crate::is_cpu(device)) {
            return Ok(crate::cuda::gauge::check_limit(device, limit)?);
        }
        let _ = device;
        Ok(())
    }

    /// How the memory is laid out, in words for people; `None` before the first layer ran, and on the CPU.
    pub fn words(&self) -> Option<String> {
        #[cfg(feature = "cuda")]
        return self.state().arena.as_ref().map(|arena| arena.words().to_owned());
        #[cfg(not(feature = "cuda"))]
        None
    }
}

/// A claim on a [`Workspace`].
#[derive(Debug)]
pub struct Reservation {
    workspace: Workspace,
    bytes: u64,
    tokens_before: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let settings = &mut self.workspace.state().settings;
        settings.reserved -= self.bytes;
        settings.tokens = self.tokens_before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_belong_to_one_model_and_reservations_end() {
        let (one, other) = (Workspace::default(), Workspace::default());
        one.set(Some(7), Keep::All);
        let whole = |reserved, tokens| MemorySettings { limit: Some(7), keep: Keep::All, reserved, tokens };
        let reservation = one.reserve(100, 64);
        assert_eq!(one.clone().settings(), whole(100, 64));
        let second = one.reserve(20, 8);
        assert_eq!(one.settings(), whole(120, 64));
        drop(second);
        drop(reservation);
        assert_eq!(one.settings(), whole(0, 0));
        assert_eq!(other.settings(), MemorySettings::default());
        assert_eq!(one.words(), None, "no layer ran");
    }
}
