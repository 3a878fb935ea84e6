//! What can be wrong with a model directory, or with what is asked of a model.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a model directory. Every variant names the file, and the tensor where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] descant_files::Error),
    /// `config.json` is not the configuration of a model that this crate computes.
    #[error("{path}: {reason}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, naming the key.
        reason: String,
    },
    /// The device failed to do what was queued; the results are lost.
    #[error(transparent)]
    Device(#[from] descant_kernels::DeviceError),
    /// The device did not take a tensor.
    #[error("{path}: tensor `{name}`: {source}")]
    Upload {
        /// The file.
        path: String,
        /// The tensor.
        name: String,
        /// What the device says.
        source: descant_kernels::DeviceError,
    },
    /// There are no weights in the directory.
    #[error("{dir}: neither model.safetensors nor model.safetensors.index.json is there", dir = dir.display())]
    NoWeights {
        /// The directory.
        dir: PathBuf,
    },
    /// `model.safetensors.index.json` cannot be followed.
    #[error("{path}: {reason}", path = path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A shard is not a safetensors file.
    #[error("{path}: not a safetensors file: {reason}", path = path.display())]
    Shard {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tensor that the configuration asks for is in no shard.
    #[error("{dir}: tensor `{name}` is missing", dir = dir.display())]
    TensorMissing {
        /// The model directory.
        dir: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A shard holds a tensor that the configuration has no place for.
    #[error("{path}: tensor `{name}` has no place in this configuration")]
    TensorExtra {
        /// The shard.
        path: String,
        /// The tensor.
        name: String,
    },
    /// A tensor is in two shards.
    #[error("{path}: tensor `{name}` was already in another shard")]
    TensorTwice {
        /// The shard.
        path: String,
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{path}: tensor `{name}` is {actual:?}, the configuration says {expected:?}")]
    TensorShape {
        /// The shard.
        path: String,
        /// The tensor.
        name: String,
        /// Shape by the configuration.
        expected: Vec<usize>,
        /// Shape in the file.
        actual: Vec<usize>,
    },
    /// A tensor has an element type that does not belong there.
    #[error("{path}: tensor `{name}` is {actual}; expected {expected}")]
    TensorType {
        /// The shard.
        path: String,
        /// The tensor.
        name: String,
        /// Types that are read.
        expected: &'static str,
        /// Type in the file.
        actual: String,
    },
    /// A tensor holds a value that is not a number.
    #[error("{path}: tensor `{name}` has a non-finite value at element {element}")]
    TensorNotFinite {
        /// The shard.
        path: String,
        /// The tensor.
        name: String,
        /// First such element.
        element: usize,
    },
    /// Packed matrices that the kernels of a GPU cannot read.
    #[error("{path}: tensor `{name}`: {reason}")]
    NotTiled {
        /// The shard.
        path: String,
        /// The tensor.
        name: String,
        /// Why not.
        reason: String,
    },
    /// What is beside a packed matrix does not describe one that this crate can unpack.
    #[error("{path}: tensor `{name}`: {reason}")]
    QuantState {
        /// The shard.
        path: String,
        /// The tensor at which it showed.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A token id that the model has no embedding for.
    #[error("token {position} is {id}, the vocabulary has {vocabulary} rows")]
    TokenId {
        /// Position in the sequence, from 0.
        position: usize,
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocabulary: usize,
    },
    /// A sequence without tokens.
    #[error("sequence {index} of the batch is empty")]
    EmptySequence {
        /// Which sequence, from 0.
        index: usize,
    },
    /// A prompt leaves no room for a reply.
    #[error(
        "prompt {index} has {tokens} tokens and leaves no room for a reply: the model's context is {context} tokens, \
         prompt and reply together; shorten the prompt"
    )]
    PromptTooLong {
        /// Which prompt, from 0.
        index: usize,
        /// Its tokens.
        tokens: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// Memory does not hold a prompt with its reply.
    #[error(
        "prompt {index} and its reply may have {tokens} tokens, for which generation takes {needed} bytes, and {free} are \
         there: allow fewer new tokens, shorten the prompt, or allow more memory"
    )]
    NoRoom {
        /// Which prompt, from 0.
        index: usize,
        /// Tokens that both may come to have.
        tokens: usize,
        /// Bytes of their keys and values, and of what generation works in.
        needed: u64,
        /// Bytes that may be taken.
        free: u64,
    },
    /// A setting of the sampling is out of range.
    #[error("prompt {index}: {reason}")]
    Sampling {
        /// Which prompt, from 0.
        index: usize,
        /// The setting, its value, and what is expected.
        reason: String,
    },
    /// The model gave something that is not a number.
    #[error(
        "the logits of prompt {sequence} at new token {step} are not finite: weights or adapter overflow, or are damaged"
    )]
    LogitsNotFinite {
        /// Which prompt, from 0.
        sequence: usize,
        /// Which of its new tokens, from 0.
        step: usize,
    },
}
