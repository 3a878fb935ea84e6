//! Whether a run fits into memory: what it will need, what is free, and what would fit instead.
//!
//! On the CPU the estimate starts from what the process uses once the data is read, and is compared with what the
//! system says is available and against `memory.limit`. On a card it is compared with what the driver says is free.
//! Where the system does not report free memory, nothing is refused.
//!
//! `found.rs` is what there is, `run.rs` what a run needs of it, `asking.rs` what prompts alone need, `bus.rs` what
//! crosses the bus, and `refusal.rs` says what does not fit.

mod asking;
mod bus;
mod found;
mod refusal;
mod run;

pub(crate) use asking::{fewer_at_once, place_for_asking};
pub(crate) use found::{Found, in_use};
pub(crate) use run::Room;
