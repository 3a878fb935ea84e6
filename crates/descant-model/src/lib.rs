//! gpt-oss, frozen: configuration, weights, forward pass, key-value cache and sampling.
//!
//! The base model is inert data. At each [`Site`] the forward pass asks an overlay for what to add; what is
//! trainable lives there (descant-lora). This crate does not train, render text, or open sockets.

mod config;
mod error;
mod rope;
mod site;

pub use config::{Config, LayerType, MAX_CONFIG_BYTES};
pub use error::{Error, Result};
pub use rope::{Rope, Yarn};
pub use site::{Site, SiteDims, SiteKind};
