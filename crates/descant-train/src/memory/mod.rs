//! How much memory a run will need, from sizes alone, and how it is laid out to fit.
//!
//! `estimate.rs` adds up what a run takes; `arrange.rs` looks for the [`Arrangement`] with which it fits. Nothing here
//! asks a device.

mod arrange;
mod arrangement;
mod estimate;

pub use arrange::arrange;
pub use arrangement::Arrangement;
pub use estimate::{Asking, Load, Memory, Place, check_card, estimate, estimate_asking};
