//! The training loop, optimizer, schedule, events and scores. No terminal, no environment.
//!
//! A [`Sample`] has token ids with a weight for each; [`fit`] trains an adapter on samples in a seeded order and reports
//! to an [`Observer`]:
//!
//! ```no_run
//! use burn::tensor::Device;
//! use descant_lora::{LoraAdapters, LoraConfig};
//! use descant_model::GptOss;
//! use descant_train::{Sample, Silent, TrainConfig, fit};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::flex();
//! let model = GptOss::load("gpt-oss-20b".as_ref(), &device)?;
//! let config = TrainConfig { max_steps: 20, ..TrainConfig::default() };
//! // The adapter lies on a device that records a graph; the base does not.
//! let (lora, recording) = (LoraConfig::default(), device.autodiff());
//! let adapters = LoraAdapters::init(&model.config, &lora, config.seed, &recording)?;
//! // The first two tokens are context, the others are learned.
//! let weights = vec![0.0, 0.0, 1.0, 1.0];
//! let sample = Sample { row: 1, ids: vec![1523, 30, 1525, 13], weights, first_analysis: None };
//! let trained = fit(&model, adapters, &[sample], &config, &mut Silent)?;
//! trained.save_peft("adapter".as_ref(), &model.config, "openai/gpt-oss-20b")?;
//! # Ok(())
//! # }
//! ```
//!
//! For a loop of one's own there is [`Trainer`], which makes one step of the micro-batches that it is given, towards an
//! [`Objective`]. [`fit_kept`] is a run that is saved and resumed ([`checkpoint`]), may share its steps among processes
//! ([`Workers`]) and looks at validation examples; [`memory`] predicts what a run takes; [`score`] measures without
//! training.

pub mod checkpoint;
mod config;
mod error;
mod event;
mod expert_load;
mod feed;
mod fit;
pub mod fp8;
mod guard;
mod incident;
pub mod memory;
mod micro_batch;
mod objective;
mod optimizer;
mod run;
mod sample;
mod schedule;
mod score;
mod shared;
mod state;
mod together;
mod trainer;
mod validation;
mod work;
mod workers;

pub use config::{Experts, OptimizerKind, Schedule, TrainConfig};
pub use error::{Error, Result};
pub use event::{Event, Observer, Silent, StepMetrics, StepTiming};
pub use expert_load::{ExpertLoad, expert_load};
pub use fit::{Ended, Keeping, fit, fit_kept};
pub use guard::{GuardConfig, OnDeviation, OnSpike, Window};
pub use incident::{Incident, Place};
pub use micro_batch::MicroBatch;
pub use objective::{CrossEntropy, Objective};
pub use run::Course;
pub use sample::{Sample, Samples};
pub use score::{IGNORED, Score, score, score_ranked};
pub use state::{SavedMoments, TrainerState};
pub use trainer::{PROVEN_AFTER_STEP, StepResult, Trainer, experts_in_bf16};
pub use validation::{ChannelLoss, Validation, ValidationMetrics, Watched};
pub use workers::{Link, OverGroup, Shared, Workers};
