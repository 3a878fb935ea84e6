//! Number formats of published checkpoints, as pure codecs over slices.
//!
//! [`mxfp4`] is what the experts of gpt-oss are published in, [`nf4`] is what bitsandbytes packs whole models
//! into, [`e4m3`] is what experts' products in fp8 are made of. Decoding is bit-exact against the reference libraries. Nothing here knows tensors, files or threads:
//! callers cut the work into blocks and share it out.

pub mod e4m3;
mod error;
pub mod mxfp4;
pub mod nf4;
mod packing;
mod transpose;

pub use error::{Error, Result};
pub use packing::Packing;
pub use transpose::transposed;

/// Runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
