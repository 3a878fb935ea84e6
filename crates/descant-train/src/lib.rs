//! The training loop, optimizer, schedule, events and scores. No terminal, no environment.

pub mod checkpoint;
mod config;
mod error;
mod event;
mod expert_load;
mod feed;
mod fit;
mod guard;
mod incident;
pub mod memory;
mod micro_batch;
mod objective;
mod optimizer;
mod sample;
mod schedule;
mod score;
mod state;
mod together;
mod trainer;
mod validation;
mod work;

pub use config::{OptimizerKind, Schedule, TrainConfig};
pub use error::{Error, Result};
pub use event::{Event, Observer, Silent, StepMetrics, StepTiming};
pub use expert_load::{ExpertLoad, expert_load};
pub use fit::{Course, Ended, Keeping, fit, fit_kept};
pub use guard::{GuardConfig, OnSpike, Window};
pub use incident::{Incident, Place};
pub use micro_batch::MicroBatch;
pub use objective::{CrossEntropy, Objective};
pub use sample::{Sample, Samples};
pub use score::{IGNORED, Score, score, score_ranked};
pub use state::{Moments, TrainerState};
pub use trainer::{PROVEN_AFTER_STEP, StepResult, Trainer};
pub use validation::{ChannelLoss, Validation, ValidationMetrics, Watched};
