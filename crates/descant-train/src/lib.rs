//! The training loop, optimizer, schedule, events and evaluation. No terminal, no environment.

mod config;
mod event;
pub mod measure;

pub use config::{Schedule, TrainConfig};
pub use event::{Event, Observer, Silent, StepMetrics, StepTiming};
