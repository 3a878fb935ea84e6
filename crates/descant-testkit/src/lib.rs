//! What the tests of several crates share; never part of a product, so it may panic where a test would.

pub mod loopback;
