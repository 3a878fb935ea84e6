//! The events of a run.
//!
//! The loop knows no terminal: it hands events to an observer, and the command line draws them. Values that are
//! part of the result (`StepMetrics`) are kept apart from values that depend on the machine's mood
//! (`StepTiming`), so that metrics files can be compared byte by byte.

use serde::{Deserialize, Serialize};

use crate::checkpoint::LogLengths;
use crate::config::Experts;
use crate::error::Result;
use crate::validation::ValidationMetrics;
use crate::workers::Shared;

/// Numbers of one optimizer step that the same build, config, data and device reproduce exactly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Optimizer step, from 1.
    pub step: u64,
    /// Mean loss in nats over the step's trained tokens.
    pub loss: f32,
    /// Bits of `loss`, so that no decimal form is between two runs that are compared.
    pub loss_bits: u32,
    /// Mean loss of the first token of each analysis body alone: where the choice of language happens.
    /// `None` when the step had no such token.
    pub first_analysis_loss: Option<f32>,
    /// Learning rate of this step's update.
    pub learning_rate: f64,
    /// Norm of the whole gradient before clipping.
    pub grad_norm: f32,
    /// Samples in the step.
    pub samples: usize,
    /// Tokens that went through the model.
    pub tokens: usize,
    /// Tokens that carried loss.
    pub trained_tokens: usize,
    /// Passes over the data set so far, with fraction.
    pub epoch: f64,
    /// Steps so far whose update was left out.
    pub skipped: u64,
    /// In which numbers the step multiplied with experts, where that is not bf16.
    #[serde(default, skip_serializing_if = "Experts::is_usual")]
    pub experts: Experts,
    /// The loss on examples that are not trained on, after steps at which it is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationMetrics>,
}

/// Wall-clock numbers of one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepTiming {
    /// Optimizer step, from 1.
    pub step: u64,
    /// Seconds the step took.
    pub seconds: f64,
    /// Tokens through the model per second of this step.
    pub tokens_per_second: f64,
    /// What the step was to the processes that shared it, where there were several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Shared>,
}

/// Something an observer may want to show.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A part of the run begins. `total` counts what [`Progress`](Self::Progress) will count.
    Phase {
        /// Short name, such as `evaluate before`.
        name: &'a str,
        /// Units of work, when known.
        total: Option<u64>,
    },
    /// Units of the current phase that are done.
    Progress {
        /// Units done.
        done: u64,
    },
    /// An optimizer step is done.
    Step {
        /// Its reproducible numbers.
        metrics: &'a StepMetrics,
        /// Its times.
        timing: StepTiming,
        /// Steps of the whole run.
        total: u64,
    },
    /// The gradient of a step, site by site, before it is clipped. Comes before the step's own event, at some steps.
    Gradients {
        /// Optimizer step, from 1.
        step: u64,
        /// Site, and the norm of the gradients of its A and B together.
        norms: &'a [(String, f32)],
    },
    /// Something worth knowing, such as how the device's memory is used.
    Note {
        /// One word.
        label: &'a str,
        /// The rest.
        text: &'a str,
    },
    /// Something that is not an error and must be seen.
    Warning(&'a str),
}

/// Sees events in order. Must not fail a run.
pub trait Observer {
    /// Called for each event.
    fn on(&mut self, event: &Event<'_>);

    /// Called before a checkpoint: brings what was recorded of the events so far to the disk, and returns how long each
    /// log is, by its name in the run's folder.
    ///
    /// # Errors
    /// Something was not recorded.
    fn logs(&mut self) -> Result<LogLengths> {
        Ok(LogLengths::new())
    }
}

/// Sees nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn on(&mut self, _event: &Event<'_>) {}
}
