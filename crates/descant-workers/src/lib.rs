//! The processes that share a training run: who they are, what they send each other, and how they end together.
//!
//! A [`Place`] says which of how many this process is, read from what torchrun, Slurm or our own launcher set. A
//! [`Group`] connects them: every process has one connection, to rank 0, which passes on what the others send. That is
//! all that small messages need; gradients on cards take another way. [`deal`] decides who computes what.
//!
//! Whatever happens to one of them, all learn of it within [`SILENCE`], with one cause: see `watch.rs`.
//!
//! Usable alone: bytes in and out. It knows no tensors, no files and no devices, and reads no environment.

mod deal;
mod error;
mod frame;
mod group;
mod hello;
mod hosts;
mod place;
mod watch;

pub use deal::{Dealt, deal};
pub use error::{Error, Result};
pub use group::{Group, Wait};
pub use hello::{Facts, Member};
pub use place::{Place, Started};
pub use watch::{BEAT, Cause, SILENCE};
