//! The settings of the training loop, and their ranges.

use descant_kernels::ExpertForm;
use serde::{Deserialize, Serialize};

use crate::micro_batch::MicroBatch;

/// Most steps of a run; products of a step's counts stay far within 64 bits.
const MAX_STEPS: u64 = 1 << 30;
/// Longest sequence in tokens.
const MAX_SEQUENCE: u64 = 1 << 20;
/// Most sequences in a micro-batch, and most micro-batches in a step.
const MAX_COUNT: u64 = 1 << 16;

/// How the learning rate moves after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Straight down to zero.
    Linear,
    /// Half a cosine down to zero.
    Cosine,
    /// Stays.
    Constant,
}

/// How the optimizer keeps its moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum OptimizerKind {
    /// AdamW with f32 moments.
    #[serde(rename = "adamw")]
    AdamW,
    /// AdamW with 8-bit moments in blocks of 256: a quarter of the memory.
    #[serde(rename = "adamw_8bit")]
    AdamW8bit,
}

/// In which numbers a step multiplies with the experts' frozen weights. Validation, evaluation and generation always do so
/// in bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Experts {
    /// bf16.
    #[default]
    Bf16,
    /// Eight-bit floats: faster on a Hopper GPU; MXFP4 weights stay exact, activations are rounded.
    Fp8,
}

impl Experts {
    /// As kernels call it.
    pub fn form(self) -> ExpertForm {
        match self {
            Self::Bf16 => ExpertForm::Bf16,
            Self::Fp8 => ExpertForm::Fp8,
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    pub(crate) fn is_usual(&self) -> bool {
        *self == Self::Bf16
    }
}

/// Settings of the loop and the optimizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Optimizer steps.
    pub max_steps: u64,
    /// Sequences in a micro-batch: conversations, or packed sequences with `packing`.
    pub micro_batch: MicroBatch,
    /// Micro-batches in one optimizer step; sequences if `micro_batch` is `auto`.
    pub accumulation: usize,
    /// Maximum sequence length in tokens; longer ones are handled by `data.too_long`, never truncated silently.
    pub max_sequence: usize,
    /// Whether to pack conversations (best fit) into sequences of up to `max_sequence` tokens.
    pub packing: bool,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Learning rate schedule after the warm-up.
    pub schedule: Schedule,
    /// Steps of linear warm-up; the first step's rate is 0, as in transformers.
    pub warmup_steps: u64,
    /// The optimizer.
    pub optimizer: OptimizerKind,
    /// Decoupled weight decay of AdamW.
    pub weight_decay: f64,
    /// AdamW's decay rate of the first moment.
    pub beta1: f64,
    /// AdamW's decay rate of the second moment.
    pub beta2: f64,
    /// AdamW's epsilon.
    pub epsilon: f64,
    /// Gradients are clipped to this norm.
    pub max_grad_norm: f64,
    /// Seed of the adapter's initialization and of the data order.
    pub seed: u64,
    /// In which numbers a step multiplies with the experts' frozen weights; fp8 is first compared with bf16
    /// (`guard.on_deviation`).
    // Left out where it is the usual, so that a run that was begun before this key was there goes on.
    #[serde(skip_serializing_if = "Experts::is_usual")]
    #[cfg_attr(feature = "schema", schemars(extend("default" = "bf16")))]
    pub experts: Experts,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            max_steps: 60,
            micro_batch: MicroBatch::Of(16),
            accumulation: 1,
            max_sequence: 4096,
            packing: false,
            learning_rate: 2e-4,
            schedule: Schedule::Linear,
            warmup_steps: 5,
            optimizer: OptimizerKind::AdamW,
            weight_decay: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            max_grad_norm: 1.0,
            seed: 3407,
            experts: Experts::Bf16,
        }
    }
}

impl TrainConfig {
    /// Shortens a warm-up that nobody asked for to its share of the steps, where there are fewer steps than that; says
    /// so. A schedule that was asked for is left to [`validate`](Self::validate).
    pub fn fit_warmup(&mut self) -> Option<String> {
        if self.warmup_steps <= self.max_steps {
            return None;
        }
        let usual = Self::default();
        self.warmup_steps = (self.max_steps * usual.warmup_steps / usual.max_steps).max(1);
        Some(format!(
            "train.warmup_steps is {} here: its default, {}, is more than train.max_steps, {}",
            self.warmup_steps, usual.warmup_steps, self.max_steps
        ))
    }

    /// Sequences that go through the model at once; one where that is open.
    pub fn at_once(&self) -> usize {
        match self.micro_batch {
            MicroBatch::Auto => 1,
            MicroBatch::Of(sequences) => sequences,
        }
    }

    /// Sequences of a step.
    pub fn units(&self) -> usize {
        self.at_once() * self.accumulation
    }

    /// The same step with so many sequences at once, a divisor of those of a step.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn with_at_once(&self, sequences: usize) -> Self {
        assert!(sequences > 0 && self.units().is_multiple_of(sequences), "a step is of whole micro-batches");
        Self { micro_batch: sequences.into(), accumulation: self.units() / sequences, ..self.clone() }
    }

    /// The numbers of sequences up to `most` that can go through the model at once, the largest first.
    pub fn divisors(&self, most: usize) -> impl Iterator<Item = usize> + use<> {
        let units = self.units();
        (1..=most).rev().filter(move |sequences| units.is_multiple_of(*sequences))
    }

    /// Checks every range.
    ///
    /// # Errors
    /// A text naming the key, its value and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        for (key, value, most) in [
            ("max_steps", self.max_steps, MAX_STEPS),
            ("max_sequence", self.max_sequence as u64, MAX_SEQUENCE),
            ("micro_batch", self.at_once() as u64, MAX_COUNT),
            ("accumulation", self.accumulation as u64, MAX_COUNT),
        ] {
            if value == 0 || value > most {
                return Err(format!("train.{key} is {value}; expected 1 to {most}"));
            }
        }
        for (key, value, low, high) in [
            ("learning_rate", self.learning_rate, f64::MIN_POSITIVE, 1.0),
            ("weight_decay", self.weight_decay, 0.0, 1.0),
            ("beta1", self.beta1, 0.0, 1.0 - f64::EPSILON),
            ("beta2", self.beta2, 0.0, 1.0 - f64::EPSILON),
            ("epsilon", self.epsilon, f64::MIN_POSITIVE, 1.0),
            ("max_grad_norm", self.max_grad_norm, f64::MIN_POSITIVE, f64::MAX),
        ] {
            if !(value >= low && value <= high) {
                return Err(format!("train.{key} is {value}; expected a number from {low:e} to {high:e}"));
            }
        }
        if self.warmup_steps > self.max_steps {
            return Err(format!(
                "train.warmup_steps is {} but the run has only {} steps",
                self.warmup_steps, self.max_steps
            ));
        }
        Ok(())
    }
}
