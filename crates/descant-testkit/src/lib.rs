//! What the tests of several crates share; never part of a product, so it may panic where a test would.
//!
//! Everything random is drawn from a seed that a failing test prints, by a generator that is written out here.

pub mod crash;
mod dice;
pub mod door;
pub mod golden;
pub mod heap;
pub mod loopback;
pub mod micro;
pub mod mutate;
pub mod nf4;
mod scratch;
pub mod shard;
pub mod store;
pub mod texts;
#[cfg(unix)]
pub mod walk;

pub use dice::Dice;
pub use scratch::scratch;
