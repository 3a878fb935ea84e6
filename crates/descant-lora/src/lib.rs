//! The trainable part of a fine-tune: LoRA adapters as an overlay on the frozen model, and their PEFT files.
//!
//! Does not train (descant-train) and does not compute the products themselves (descant-kernels).

mod adapters;
mod config;
mod error;
mod files;
mod folder;
pub mod mlx;
pub mod peft;
mod written;

pub use adapters::{LoraAdapters, Pair};
pub use config::{LoraConfig, MAX_RANK};
pub use error::{Error, Result};
pub use folder::{Folder, Writer, read};
