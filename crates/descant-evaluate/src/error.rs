//! What can be wrong with questions, samples and figures. Every text names the file and the place in it.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A question that cannot be asked.
    #[error("{file}, line {line}: {reason}")]
    Question {
        /// The questions.
        file: String,
        /// The line, from 1; of parquet the row.
        line: u64,
        /// The key and what is wrong with it.
        reason: String,
    },
    /// Two questions with one id.
    #[error("{file}, line {line}: id `{id}` is taken by {first}")]
    Taken {
        /// The questions.
        file: String,
        /// The second line.
        line: u64,
        /// The id.
        id: String,
        /// Where it was first.
        first: String,
    },
    /// A file without a question, or without one that was chosen.
    #[error("{file}: {reason}")]
    Empty {
        /// The questions.
        file: String,
        /// Why there are none.
        reason: String,
    },
    /// No suite of this name, and no file.
    #[error("no suite `{name}`, and no such file; shipped are {known}")]
    NoSuite {
        /// What was asked for.
        name: String,
        /// Names of those that ship.
        known: String,
    },
    /// A file of samples that cannot be used.
    #[error("{}, line {line}: {reason}", path.display())]
    Samples {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// Samples of another evaluation.
    #[error("{} was made with another `{key}`: {there}; now it is {here}", path.display())]
    OtherHeader {
        /// The file.
        path: PathBuf,
        /// The key that differs.
        key: String,
        /// Its value there.
        there: String,
        /// Its value now.
        here: String,
    },
    /// A threshold that cannot be read, or that nothing was measured for.
    #[error("--at-least {text}: {reason}")]
    Threshold {
        /// As given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Rendering, tokenizing, or reading rows failed.
    #[error(transparent)]
    Harmony(#[from] descant_harmony::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    Files(#[from] descant_files::Error),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
