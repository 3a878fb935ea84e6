//! The whole model on a CUDA card: bf16 there against f32 on the CPU, which the golden tests hold to transformers.
//!
//! They are ignored where none is asked for: `--ignored` runs them, and then a missing card is a failure. They run beside
//! each other, in as many threads as there are: [`card`] is how a test comes to the card, and [`card_alone`] is for those
//! that change what the others find there.
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
mod fp8_refused;
mod fp8_trained;
mod full;
mod golden;
mod in_place;
mod limited;
mod models;
mod placed;
mod repeat;
mod routing;
mod shared;

use std::ops::Deref;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use burn::tensor::Device;
use descant_kernels::Workspace;
use descant_kernels::cuda::Gpu;

/// Whether the portable kernels are wanted everywhere.
fn is_portable() -> bool {
    std::env::var_os("DESCANT_CARD").is_some_and(|value| value == "portable")
}

/// The tests that are on the card.
static ON_CARD: RwLock<()> = RwLock::new(());

/// With others or alone.
enum Turn {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// The first card while a test has it. To be made first, so that it is dropped last.
struct Card {
    device: Device,
    _turn: Turn,
}

impl Deref for Card {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.device
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // What burn holds for this thread's stream nobody else would ever use.
        let _ = Workspace::default().room(&self.device);
    }
}

/// The first card, beside other tests.
fn card() -> Card {
    let guard = ON_CARD.read().unwrap_or_else(PoisonError::into_inner);
    Card { device: device(), _turn: Turn::Shared { _guard: guard } }
}

/// The first card, and no other test on any: for a test that fills a card, sets a limit for the process, or uses all cards.
/// What a test sets for its thread (portable kernels, buffers that are poisoned, memory that may not be pinned) goes with
/// the thread's work and disturbs nobody.
fn card_alone() -> Card {
    let guard = ON_CARD.write().unwrap_or_else(PoisonError::into_inner);
    Card { device: device(), _turn: Turn::Alone { _guard: guard } }
}

/// The first card for a thread of a test that has it already; buffers of this thread are poisoned.
fn device() -> Device {
    if let Err(error) = Gpu::of(0) {
        panic!("this test needs a card: {error}");
    }
    descant_kernels::cuda::poison_buffers(true);
    descant_kernels::cuda::portable_kernels(is_portable());
    Device::cuda(0)
}
