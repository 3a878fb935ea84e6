//! The memory of one model: what it may use, and on a card the arena that its layers work in. It owns both and ends with
//! the model: two models on one card do not see each other's, and of their limits the smaller holds for both.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;

#[cfg(feature = "cuda")]
use super::arena::{Arena, Lease, Order, Places};
#[cfg(feature = "cuda")]
use super::budget::Need;
use super::keep::Keep;
use super::settings::{Claim, MemorySettings};
use crate::DeviceError;
#[cfg(feature = "cuda")]
use crate::cuda::{CudaError, Gpu, Limited};

/// The settings of one model's memory and, on a card, the memory that its layers work in; cheap to clone.
///
/// Threads may share one: what they queue is ordered on the card, since they use the same bytes.
#[derive(Debug, Clone, Default)]
pub struct Workspace(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    #[cfg(feature = "cuda")]
    order: Arc<Order>,
}

#[derive(Debug, Default)]
struct State {
    limit: Option<u64>,
    keep: Keep,
    /// For measurements: bytes a second that cross the bus.
    bus: Option<f64>,
    /// What lives, with the number that its owner knows it by.
    claims: Vec<(u64, Claim)>,
    /// Numbers that were given out.
    numbers: u64,
    #[cfg(feature = "cuda")]
    arena: Option<Arena>,
    /// The limit as the card holds it. With the model it ends: what comes next on the card has its own.
    #[cfg(feature = "cuda")]
    held: Option<Limited>,
}

impl State {
    /// Has the card hold the limit, if there is one.
    #[cfg(feature = "cuda")]
    fn hold(&mut self, gpu: &Gpu) -> crate::cuda::Result<()> {
        if let (Some(limit), None) = (self.limit, &self.held) {
            self.held = Some(crate::cuda::gauge::limited(gpu, limit)?);
        }
        Ok(())
    }

    fn settings(&self) -> MemorySettings {
        let claimed = self.claims.iter().fold(Claim::default(), |all, (_, claim)| all.and(*claim));
        MemorySettings { limit: self.limit, keep: self.keep, claimed }
    }
}

impl Workspace {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what the layers may use; what was reserved stays.
    pub fn set(&self, limit: Option<u64>, keep: Keep) {
        let mut state = self.state();
        #[cfg(feature = "cuda")]
        if limit != state.limit {
            state.held = None;
        }
        (state.limit, state.keep) = (limit, keep);
    }

    /// Has the device keep within the limit from here on, as long as this lives, and not only once a layer has run: for what
    /// is done before, such as loading. Of several limits on a device the smallest holds.
    ///
    /// # Errors
    /// The device refuses.
    pub fn hold_limit(&self, device: &Device) -> Result<(), DeviceError> {
        #[cfg(feature = "cuda")]
        if let Some(index) = crate::cuda::index_of(device) {
            self.state().hold(&Gpu::of(index)?)?;
        }
        let _ = device;
        Ok(())
    }

    /// For measurements: what layers bring over the bus comes at so many bytes a second, once memory is laid out.
    pub fn slow_bus(&self, bytes_per_second: f64) {
        self.state().bus = Some(bytes_per_second);
    }

    /// What was set.
    pub fn settings(&self) -> MemorySettings {
        self.state().settings()
    }

    /// Leaves bytes free for those who will ask for them later, and lays memory out for so many tokens and batches at
    /// least, for as long as the result lives.
    #[must_use = "what is reserved ends with the result"]
    pub fn reserve(&self, claim: Claim) -> Reservation {
        let mut state = self.state();
        state.numbers += 1;
        let number = state.numbers;
        state.claims.push((number, claim));
        drop(state);
        Reservation { workspace: self.clone(), number }
    }

    /// Gives back the memory that layers work in, for what needs much beside them; the next layer lays it out again. Under a
    /// limit what burn's pool holds for later goes too.
    ///
    /// # Errors
    /// The device refuses.
    pub fn make_way(&self, device: &Device) -> Result<(), DeviceError> {
        #[cfg(feature = "cuda")]
        {
            let before = self.state().arena.take();
            drop(before);
            if let (Some(_), Some(index)) = (self.settings().limit, crate::cuda::index_of(device)) {
                crate::cuda::gauge::release_unused(&Gpu::of(index)?)?;
            }
        }
        let _ = device;
        Ok(())
    }

    /// Has burn's pool make pages for tensors of so many bytes from here on. They are as large as the largest tensor that was
    /// asked for: with batches that grow, each longer one left pages behind on which small tensors lived on.
    pub fn pages_for(&self, device: &Device, bytes: usize) {
        #[cfg(feature = "cuda")]
        if let Some(index) = crate::cuda::index_of(device) {
            drop(crate::cuda::gauge::page(index, bytes));
        }
        let _ = (device, bytes);
    }

    /// Whether no more is in use on the device than the limit says; gives back what burn's pool holds for later first.
    ///
    /// # Errors
    /// More is in use: the limit was not kept. Or it refused what this thread queued before.
    pub fn check_limit(&self, device: &Device) -> Result<(), DeviceError> {
        #[cfg(feature = "cuda")]
        if let (Some(limit), Some(index)) = (self.settings().limit, crate::cuda::index_of(device)) {
            let gpu = Gpu::of(index)?;
            self.state().hold(&gpu)?;
            return Ok(crate::cuda::gauge::check_limit(&gpu, limit)?);
        }
        let _ = device;
        Ok(())
    }

    /// Bytes that may still be taken on a card: what is left of the limit, else nearly all that is free. What burn's pool holds
    /// for later is given back first. `None` on the CPU.
    ///
    /// # Errors
    /// The device refuses.
    pub fn room(&self, device: &Device) -> Result<Option<u64>, DeviceError> {
        #[cfg(feature = "cuda")]
        if !crate::is_cpu(device) {
            return Ok(Some(crate::cuda::gauge::room(device, self.settings().limit)?));
        }
        let _ = device;
        Ok(None)
    }

    /// How the memory is laid out, in words for people; `None` before the first layer ran, and on the CPU.
    pub fn words(&self) -> Option<String> {
        cfg_select! {
            feature = "cuda" => self.state().arena.as_ref().map(|arena| arena.words().to_owned()),
            _ => None,
        }
    }
}

/// A workspace while work is queued in it: slots are handed out and work is queued in one order.
#[cfg(feature = "cuda")]
pub(crate) struct Turn<'a> {
    order: &'a Arc<Order>,
    state: MutexGuard<'a, State>,
}

#[cfg(feature = "cuda")]
impl Workspace {
    /// Waits for other threads that are queueing work.
    pub(crate) fn turn(&self) -> Turn<'_> {
        Turn { order: &self.0.order, state: self.state() }
    }
}

#[cfg(feature = "cuda")]
impl Turn<'_> {
    /// The memory for a layer. With `keep` the layer's slot is taken from whoever had it; without, only scratch.
    pub(crate) fn lease(
        &mut self,
        gpu: &Gpu,
        need: &Need,
        layer: usize,
        keep: bool,
    ) -> crate::cuda::Result<Lease> {
        let order = self.order;
        Ok(self.arena(gpu, need)?.lease(keep.then_some(layer), order))
    }

    /// Lays memory out for what a step needs, and says where the inputs of layers lie.
    pub(crate) fn places(&mut self, gpu: &Gpu, need: &Need) -> crate::cuda::Result<Places> {
        self.arena(gpu, need)?.places().ok_or_else(|| {
            CudaError::Workspace("it serves one training step of a model at a time".to_owned())
        })
    }

    fn arena(&mut self, gpu: &Gpu, need: &Need) -> crate::cuda::Result<&mut Arena> {
        let (mut before, settings) = (self.state.arena.take(), self.state.settings());
        if self.state.held.is_none() && settings.limit.is_some() {
            // Laid out under another limit or none, and in the way of this one.
            before = None;
        }
        self.state.hold(gpu)?;
        let arena = Arena::serving(before, gpu, need, settings, self.state.bus)?;
        Ok(self.state.arena.insert(arena))
    }

    /// The scratch alone, for an operator that runs between the layers, if it has so many bytes.
    pub(crate) fn scratch(&mut self, bytes: usize) -> Option<Lease> {
        let arena = self.state.arena.as_mut().filter(|arena| arena.scratch_bytes() as usize >= bytes)?;
        Some(arena.lease(None, self.order))
    }
}

/// A claim on a [`Workspace`].
#[derive(Debug)]
pub struct Reservation {
    workspace: Workspace,
    number: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.workspace.state().claims.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_belong_to_one_model_and_reservations_end() {
        let (one, other) = (Workspace::default(), Workspace::default());
        one.set(Some(7), Keep::All);
        let whole = |bytes, tokens, together| MemorySettings {
            limit: Some(7),
            keep: Keep::All,
            claimed: Claim { bytes, tokens, together, ..Claim::default() },
        };
        let reservation = one.reserve(Claim { bytes: 100, tokens: 64, ..Claim::default() });
        assert_eq!(one.clone().settings(), whole(100, 64, 0));
        let second = one.reserve(Claim { bytes: 20, tokens: 8, together: 4, ..Claim::default() });
        assert_eq!(one.settings(), whole(120, 64, 4));
        // In whatever order they end.
        drop(reservation);
        assert_eq!(one.settings(), whole(20, 8, 4));
        drop(second);
        assert_eq!(one.settings(), whole(0, 0, 0));
        assert_eq!(other.settings(), MemorySettings::default());
        assert_eq!(one.words(), None, "no layer ran");
    }
}
