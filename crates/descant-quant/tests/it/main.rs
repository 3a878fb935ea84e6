//! The codecs against the golden files of the reference libraries, and against their own definitions.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod golden;
mod mxfp4;
mod nf4;

/// Of each property; an interpreter (`cargo xtask miri`) is some hundred times slower.
const CASES: u32 = if cfg!(miri) { 2 } else { 256 };
