//! What can keep an export from being written, or from being what was asked for.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of an export; nothing was written, or what was begun is removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] descant_files::Error),
    /// The base model's folder is wrong.
    #[error(transparent)]
    Model(#[from] descant_model::Error),
    /// The adapter's folder is wrong, or does not fit the model.
    #[error(transparent)]
    Adapter(#[from] descant_lora::peft::Error),
    /// A file beside the weights is not what a form needs.
    #[error("{path}: {reason}", path = path.display())]
    Beside {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A form cannot say what this model or adapter is.
    #[error("{reason}")]
    Unsupported {
        /// What, and what to choose instead.
        reason: String,
    },
    /// The sum of weight and update is infinite or not a number.
    #[error("tensor `{tensor}`: the merged weight is not finite at element {element}")]
    NotFinite {
        /// The tensor, by its name in the unpacked layout.
        tensor: String,
        /// Which element of the piece at hand, row-major.
        element: usize,
    },
    /// The update does not survive the packing.
    #[error(
        "tensor `{tensor}`: {lost:.0} % of what the adapter reads of its update would be lost by rounding to MXFP4"
    )]
    Lost {
        /// The tensor, by its name in the unpacked layout.
        tensor: String,
        /// Error in the adapter's own space, in per cent of the update.
        lost: f64,
    },
    /// Experts that were not MXFP4 would lose by being packed.
    #[error("tensor `{tensor}`: its numbers are not MXFP4, and packing would change them by {error:.1} %")]
    Repacked {
        /// The tensor, by its name in the unpacked layout.
        tensor: String,
        /// Error in per cent of the weight.
        error: f64,
    },
    /// The disk is too small.
    #[error("{path}: the export needs {needed} bytes, {free} are free", path = path.display())]
    Room {
        /// Where it was to go.
        path: PathBuf,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Something is at the target.
    #[error("{path}: already exists", path = path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The target is not an export, or is the source: it is not replaced.
    #[error("{path}: {reason}, so --force does not replace it", path = path.display())]
    NotReplaced {
        /// The target.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// Who watches stopped it.
    #[error("stopped; nothing was written")]
    Stopped,
    /// A GGUF file cannot be read.
    #[error("{path}: {reason}", path = path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}
