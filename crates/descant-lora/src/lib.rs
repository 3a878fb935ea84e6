//! The trainable part of a fine-tune: LoRA adapters as an overlay on the frozen model, and their PEFT files.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use descant_lora::LoraAdapters;
//! use descant_model::{Batch, GptOss};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::flex();
//! let model = GptOss::load("gpt-oss-20b".as_ref(), &device)?;
//! let adapters = LoraAdapters::load_peft("adapter".as_ref(), &model.config, &device)?;
//! let ids: &[u32] = &[1523, 30, 1525];
//! let hidden = model.hidden(&Batch::new([ids], model.config.vocab_size)?, &adapters);
//! # Ok(())
//! # }
//! ```
//!
//! [`LoraAdapters::init`] makes new ones for the targets of a [`LoraConfig`]; a target that matches nothing is an error.
//! [`peft`] and [`mlx`] are the files of other programs, and [`read()`] takes either.
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
