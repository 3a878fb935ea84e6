//! How a thread wants its work to be done: with which kernels, and what tests ask for. What it queues takes that along, so
//! that threads beside each other do not disturb it.

use std::cell::Cell;
use std::thread::{self, ThreadId};

/// See the head of the file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Testing {
    pub(super) portable: bool,
    poison: bool,
    /// Bytes of a piece that may be pinned; `None` for as many as the system lets us.
    pinned: Option<usize>,
    /// For whom what routing chooses is kept.
    routing: Option<ThreadId>,
}

thread_local! {
    static TESTING: Cell<Testing> =
        const { Cell::new(Testing { portable: false, poison: false, pinned: None, routing: None }) };
}

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
/// [`take_routing`](super::take_routing). The host then waits for the card in every layer, and steps are not recorded.
pub fn watch_routing(on: bool) {
    TESTING.set(Testing { routing: on.then(|| thread::current().id()), ..TESTING.get() });
}

/// Whether this thread watches routing.
pub(crate) fn watches_routing() -> bool {
    watcher().is_some()
}

/// Who watches routing of what this thread does.
pub(super) fn watcher() -> Option<ThreadId> {
    TESTING.get().routing
}

/// The largest piece of host memory that this thread may try to pin.
pub(crate) fn most_pinned() -> usize {
    TESTING.get().pinned.unwrap_or(usize::MAX)
}

/// Whether this thread's new buffers are poisoned.
pub(crate) fn is_poisoning() -> bool {
    TESTING.get().poison
}
