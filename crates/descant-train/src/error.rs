//! What can end a run.

use std::path::PathBuf;

use descant_model::Site;

use crate::checkpoint::Defect;

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
    /// The device failed to do what was queued; the results are lost.
    #[error(transparent)]
    Device(#[from] descant_kernels::DeviceError),
    /// The processes that share the run cannot continue together.
    #[error(transparent)]
    Workers(#[from] descant_workers::Error),
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
    /// Samples that are kept outside memory cannot be read.
    #[error("sample {at}: {reason}")]
    Unreadable {
        /// Its place among the samples.
        at: usize,
        /// Why.
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
    /// Loss or gradient is non-finite. Nothing was updated.
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
    /// A state is of other adapters than those it was to be given to.
    #[error("{0}")]
    State(String),
    /// A checkpoint cannot be used, and there is no way round it.
    #[error("checkpoint {path}: {defect}", path = path.display())]
    Checkpoint {
        /// Its folder.
        path: PathBuf,
        /// What is wrong with it.
        defect: Defect,
    },
    /// There are checkpoints, and none of them is whole.
    #[error("{folder}: none of the {count} checkpoints is whole; the newest: {newest}", folder = folder.display())]
    NoneWhole {
        /// Their folder.
        folder: PathBuf,
        /// How many there are.
        count: usize,
        /// What is wrong with the newest.
        newest: String,
    },
    /// The folder's checkpoints are of a run that differs.
    #[error("{folder}: the run there is another one:\n  {}", differences.join("\n  "), folder = folder.display())]
    OtherRun {
        /// The run's folder.
        folder: PathBuf,
        /// What differs: name, value there, value now.
        differences: Vec<String>,
    },
    /// The disk has no room for a checkpoint.
    #[error("{folder}: a checkpoint needs {needed} bytes, {free} are free", folder = folder.display())]
    NoRoom {
        /// Where it should go.
        folder: PathBuf,
        /// Bytes it needs while it is written.
        needed: u64,
        /// Bytes that are free.
        free: u64,
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

impl Error {
    /// Whether a card had no room for what was asked of it.
    pub fn is_full_card(&self) -> bool {
        match self {
            Self::Device(error) | Self::Model(descant_model::Error::Device(error)) => error.out_of_memory,
            _ => false,
        }
    }
}
