//! Of descant-lora the settings and the PEFT files, as they are, without the tensors: so that fuzzing builds no burn.

#[path = "../../../../descant-lora/src/config.rs"]
mod config;
#[path = "../../../../descant-lora/src/error.rs"]
mod error;
#[path = "../../../../descant-lora/src/folder.rs"]
mod folder;
#[path = "../../../../descant-lora/src/mlx.rs"]
pub mod mlx;
#[path = "../../../../descant-lora/src/peft/mod.rs"]
pub mod peft;
#[path = "../../../../descant-lora/src/written.rs"]
mod written;

pub use config::{LoraConfig, MAX_RANK};
pub use error::{Error, Result};
pub use folder::{Folder, Writer, read};
