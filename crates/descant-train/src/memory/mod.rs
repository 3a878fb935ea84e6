//! How much memory a run will need, from sizes alone, and how it is laid out to fit.
//!
//! `load.rs` finds what goes through the model at once, `estimate.rs` adds up what that takes ([`Memory`]), with `cpu.rs`
//! and `card.rs` for what the two places take of their own; `arrange.rs` looks for the [`Arrangement`] with which a run
//! fits. Nothing here asks a device.

mod account;
mod arrange;
mod arrangement;
mod card;
mod cpu;
mod estimate;
mod load;

pub use account::{Asking, Memory, Place};
pub use arrange::arrange;
pub use arrangement::Arrangement;
pub use card::{NoFp8, check_card, check_fp8};
pub use estimate::{estimate, estimate_asking};
pub use load::Load;
