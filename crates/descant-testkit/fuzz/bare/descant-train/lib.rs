//! Of descant-train the settings and the manifest of a checkpoint, as they are, without the tensors: so that fuzzing
//! builds no burn.

#[path = "../../../../descant-train/src/config.rs"]
mod config;
#[path = "../../../../descant-train/src/guard.rs"]
mod guard;
#[path = "../../../../descant-train/src/micro_batch.rs"]
mod micro_batch;

pub mod checkpoint;

pub use config::{Experts, OptimizerKind, Schedule, TrainConfig};
pub use guard::{GuardConfig, OnDeviation, OnSpike, Window};
pub use micro_batch::MicroBatch;
