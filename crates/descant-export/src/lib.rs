//! Adapters and merged models in the formats of other programs.
//!
//! | form | for | exact |
//! |---|---|---|
//! | [`Form::Peft`] | PEFT, newest vLLM | yes |
//! | [`Form::PeftFolded`] | every vLLM, mistral.rs, converters | to the rounding of f32 |
//! | [`Form::MlxAdapter`] | mlx-lm | to the rounding of f32 |
//! | [`Form::GgufLora`] | llama.cpp | to the rounding of f32 |
//! | [`Form::Bf16`] | transformers, vLLM, SGLang | one rounding of what changed |
//! | [`Form::Mxfp4`] | as that, MLX, Ollama | experts as [`Experts`] says, else as above |
//! | [`Form::Gguf`] | llama.cpp, LM Studio, Ollama | as above |
//!
//! Sums are in f32 and rounded once; what no update reaches is copied. A [`Report`] says what survived. Files and
//! bytes alone: nothing here knows tensors of burn or a device, and nothing is computed with a model.

mod adapters;
mod alone;
mod back;
mod base;
mod card;
mod error;
mod experts;
mod export;
mod form;
mod gguf;
mod job;
mod merge;
mod merged;
mod plan;
mod report;
mod shards;
mod survival;
mod target;
mod update;
mod writing;

pub use adapters::read_gguf_lora;
pub use back::unpack_gguf;
pub use card::model_card;
pub use error::{Error, Result};
pub use export::export;
pub use form::{Experts, Form};
pub use gguf::{Gguf, parse_gguf};
pub use job::{Job, Progress, Watch};
pub use report::{FileRow, Proof, Report, WeightRow};
pub use survival::Survival;
pub use target::REPORT_FILE;
