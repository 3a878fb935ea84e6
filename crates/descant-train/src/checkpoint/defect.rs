//! What can be wrong with a checkpoint's folder.

/// Why a checkpoint cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Defect {
    /// A file of it cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// `manifest.json` is not what was written.
    #[error("manifest.json: {0}")]
    Manifest(String),
    /// It was written by a newer version.
    #[error("manifest.json: format {found}; this version reads {known}")]
    Format {
        /// Its format.
        found: u64,
        /// Ours.
        known: u32,
    },
    /// A file has another length than the manifest says.
    #[error("{file}: {actual} bytes; the manifest says {expected}")]
    Length {
        /// The file.
        file: String,
        /// By the manifest.
        expected: u64,
        /// On the disk.
        actual: u64,
    },
    /// A file has another content than the manifest says.
    #[error("{file}: its SHA-256 is not the manifest's")]
    Hash {
        /// The file.
        file: String,
    },
    /// The manifest does not name a file.
    #[error("manifest.json does not name {file}")]
    Unlisted {
        /// The file.
        file: String,
    },
    /// A tensor is missing, too many or of another shape.
    #[error("{file}: tensor `{tensor}`: {reason}")]
    Tensor {
        /// The file.
        file: &'static str,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// A tensor file is not a safetensors file.
    #[error("{file}: {reason}")]
    Tensors {
        /// The file.
        file: &'static str,
        /// Why.
        reason: String,
    },
    /// `state.json` is not what was written.
    #[error("state.json: {0}")]
    State(String),
}

impl Defect {
    /// Whether an older checkpoint is not a way round it.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Format { .. })
    }
}
