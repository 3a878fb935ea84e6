//! What can end a run.

use std::path::PathBuf;

use descant_model::Site;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of training, scoring or evaluating.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of range.
    #[error("{0}")]
    Config(String),
    /// The model cannot be used.
    #[error(transparent)]
    Model(#[from] descant_model::Error),
    /// The adapter cannot be used.
    #[error(transparent)]
    Lora(#[from] descant_lora::Error),
    /// A file of the run cannot be read or written.
    #[error(transparent)]
    File(#[from] descant_files::Error),
    /// There is nothing to learn from.
    #[error("the data set has no rows")]
    NoSamples,
    /// A sample's tokens and weights do not belong together.
    #[error("row {row}: {reason}")]
    Sample {
        /// The row, as its reader numbers it.
        row: usize,
        /// What is wrong.
        reason: String,
    },
    /// No token of a step carries loss.
    #[error(
        "step {step}: no token of its {samples} samples carries loss; look at the mask with the data preview"
    )]
    NothingTrained {
        /// Optimizer step, from 1.
        step: u64,
        /// Samples in the step.
        samples: usize,
    },
    /// Loss or gradient is no number. Nothing was updated.
    #[error("step {step}: {what} is {value}; the adapter is as it was before this step")]
    NotFinite {
        /// Optimizer step, from 1.
        step: u64,
        /// What is not finite.
        what: &'static str,
        /// Its value.
        value: f32,
        /// The rows of the step, as their reader numbers them.
        rows: Vec<usize>,
    },
    /// A site that should learn gets no gradient.
    #[error(
        "{site}: the gradient of {tensor} is still exactly zero after step {step}; it would not be trained"
    )]
    ZeroGradient {
        /// The site.
        site: Site,
        /// `A` or `B`.
        tensor: &'static str,
        /// Optimizer step, from 1.
        step: u64,
    },
    /// A file of held-out prompts is not usable.
    #[error("{path}: {reason}", path = path.display())]
    HeldOut {
        /// The file.
        path: PathBuf,
        /// What is wrong, naming the line.
        reason: String,
    },
}
