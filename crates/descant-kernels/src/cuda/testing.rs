//! How tests want a thread's work to be done. What a thread queues takes it along, so that tests beside each other do not
//! disturb it.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

use super::error::Result;
use super::run::Run;

/// See the head of the file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Testing {
    pub(super) portable: bool,
    poison: bool,
    /// Bytes of a piece that may be pinned; `None` for as many as the system lets us.
    pinned: Option<usize>,
    /// Whether what routing chooses is kept.
    routing: bool,
}

thread_local! {
    static TESTING: Cell<Testing> =
        const { Cell::new(Testing { portable: false, poison: false, pinned: None, routing: false }) };
}

/// What routing chose, a list of experts for each launch.
static ROUTED: Mutex<Vec<Vec<u32>>> = Mutex::new(Vec::new());

impl Testing {
    pub(super) fn of_thread() -> Self {
        TESTING.get()
    }

    /// Makes it the way of this thread.
    pub(super) fn enter(self) {
        TESTING.set(self);
    }
}

/// To what this thread queues, a card takes the portable kernels, whatever it is: they can then be tested and measured on
/// a card at hand.
pub fn portable_kernels(on: bool) {
    TESTING.set(Testing { portable: on, ..TESTING.get() });
}

/// For tests: fills every buffer that an operator of this thread is given to write with values that no result survives,
/// so that what is read before it was written shows.
pub fn poison_buffers(on: bool) {
    TESTING.set(Testing { poison: on, ..TESTING.get() });
}

/// For tests: to this thread the system refuses to pin host memory in larger pieces.
pub fn pin_at_most(bytes: Option<usize>) {
    TESTING.set(Testing { pinned: bytes, ..TESTING.get() });
}

/// For tests: keeps which experts this thread's rows go to, in training's forward and in steps of generation, until
/// [`take_routing`]. The host then waits for the card in every layer, and steps are not recorded.
pub fn watch_routing(on: bool) {
    TESTING.set(Testing { routing: on, ..TESTING.get() });
}

/// What was kept: for each layer that was computed, in order, the experts of each row, the likeliest first.
pub fn take_routing() -> Vec<Vec<u32>> {
    std::mem::take(&mut *ROUTED.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Run<'_> {
    /// Whether the thread that queued this watches routing.
    pub(crate) fn watches_routing(&self) -> bool {
        TESTING.get().routing
    }

    /// If so, keeps what was queued to choose so many experts, i32, at this address.
    pub(crate) fn keep_routing(&self, experts: u64, count: usize) -> Result<()> {
        if !self.watches_routing() {
            return Ok(());
        }
        let mut bytes = vec![0; count * size_of::<i32>()];
        super::driver::copy_to_host(self.stream, &mut bytes, experts)?;
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        let chosen = bytes.chunks_exact(size_of::<i32>()).map(number).collect();
        ROUTED.lock().unwrap_or_else(PoisonError::into_inner).push(chosen);
        Ok(())
    }
}

/// The largest piece of host memory that this thread may try to pin.
pub(crate) fn most_pinned() -> usize {
    TESTING.get().pinned.unwrap_or(usize::MAX)
}

/// Whether this thread's new buffers are poisoned.
pub(crate) fn is_poisoning() -> bool {
    TESTING.get().poison
}
