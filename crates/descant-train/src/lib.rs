//! The training loop, optimizer, schedule, events and evaluation. No terminal, no environment.

mod config;
mod error;
mod event;
mod feed;
mod fit;
pub mod measure;
mod optimizer;
mod sample;
mod schedule;
mod score;
mod trainer;

pub use config::{OptimizerKind, Schedule, TrainConfig};
pub use error::{Error, Result};
pub use event::{Event, Observer, Silent, StepMetrics, StepTiming};
pub use fit::fit;
pub use sample::Sample;
pub use score::{IGNORED, Score, score};
pub use trainer::{PROVEN_AFTER_STEP, StepResult, Trainer};
