//! What can be wrong with an adapter's folder.

use std::path::PathBuf;

use descant_model::Site;

/// Result of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of an adapter's folder; every variant names the file, or the site of what was to be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] descant_files::Error),
    /// The configuration is not JSON.
    #[error("{path}: {source}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A key has a value that it cannot have.
    #[error("{path}: `{key}` {reason}", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong, with the value.
        reason: String,
    },
    /// A key is set that changes the arithmetic in a way that is not computed here, or is not known.
    #[error("{path}: `{key}` is {value}, which is not supported", path = path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value, as JSON.
        value: String,
    },
    /// The tensors are in a pickle, which is a program; it is not run.
    #[error(
        "{path}: a pickle, which is a program and is not run; convert it with `python -c \"import torch; from \
         safetensors.torch import save_file; save_file(torch.load('adapter_model.bin', weights_only=True), \
         'adapter_model.safetensors')\"` in its folder",
        path = path.display()
    )]
    Pickled {
        /// The file.
        path: PathBuf,
    },
    /// A target names nothing in the model.
    #[error("{path}: target `{target}` matches nothing in the model", path = path.display())]
    NoMatch {
        /// The file.
        path: PathBuf,
        /// The target.
        target: String,
    },
    /// Targets that are possible one by one but not together.
    #[error("{path}: {site}: {reason}", path = path.display())]
    Conflict {
        /// The file.
        path: PathBuf,
        /// Where.
        site: Site,
        /// What does not go together.
        reason: &'static str,
    },
    /// The tensors' file is not a safetensors file.
    #[error("{path}: {source}", path = path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// A tensor that the configuration implies is not there.
    #[error("{path}: tensor `{tensor}` is missing", path = path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor is there that the configuration does not imply.
    #[error("{path}: tensor `{tensor}` belongs to no target of the configuration", path = path.display())]
    ExtraTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than model and rank imply.
    #[error("{path}: tensor `{tensor}`: expected shape {expected:?}, found {actual:?}", path = path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What model and rank imply.
        expected: [usize; 2],
        /// What the file has.
        actual: Vec<usize>,
    },
    /// A tensor has a type that is not a float of 16 or 32 bits.
    #[error("{path}: tensor `{tensor}`: type {actual} is not supported, expected F32, BF16 or F16", path = path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What the file has.
        actual: String,
    },
    /// A number is infinite or not a number.
    #[error("{path}: tensor `{tensor}`: element {index} is not finite", path = path.display())]
    NonFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Which, in row-major order.
        index: usize,
    },
    /// Factors that were to be written do not fit the model.
    #[error("{site}: {reason}")]
    Factors {
        /// Where.
        site: Site,
        /// What does not fit.
        reason: String,
    },
    /// Nothing was to be written.
    #[error("the adapter has no factors")]
    Empty,
}
