//! What the tests of several crates share; never part of a product, so it may panic where a test would.
//!
//! Everything random is drawn from a seed that a failing test prints, by a generator that is written out here.

mod dice;
pub mod door;
pub mod heap;
pub mod loopback;
pub mod mutate;

pub use dice::Dice;
