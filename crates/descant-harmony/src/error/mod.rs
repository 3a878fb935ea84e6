//! Everything that can go wrong in this crate, as one enum.
//!
//! A message says which file, row or field, in that order, and keeps the reason of the layer below.
//! Hints on what to do about it belong to the command line, which knows its own flags.

mod parse;

pub use parse::{ParseError, ParseErrorKind};

use serde_json::Value as Json;
use std::io;
use std::path::{Path, PathBuf};

/// The crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a tokenizer, a template, a row or a file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is larger than any honest one.
    #[error("{}: larger than the limit of {limit} bytes", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, from [`crate::limits`].
        limit: u64,
    },
    /// The tokenizer file does not describe a tokenizer.
    #[error("{file}: not a usable tokenizer: {reason}")]
    TokenizerFile {
        /// The file as the caller named it.
        file: String,
        /// What the engine said.
        reason: String,
    },
    /// A control token of Harmony is not in the tokenizer.
    #[error("{file}: special token `{token}` is missing")]
    SpecialMissing {
        /// The file as the caller named it.
        file: String,
        /// The token's text.
        token: &'static str,
    },
    /// A special token would match more or less than its own text.
    #[error("{file}: special token `{token}` has `{flag}` set, which would change the text around it")]
    SpecialFlag {
        /// The file as the caller named it.
        file: String,
        /// The token's text.
        token: String,
        /// The flag.
        flag: &'static str,
    },
    /// The engine failed on a text.
    #[error("the tokenizer failed on a text of {bytes} bytes: {reason}")]
    Encode {
        /// The text's length.
        bytes: usize,
        /// What the engine said.
        reason: String,
    },
    /// The engine failed on ids.
    #[error("the tokenizer failed to decode {count} ids: {reason}")]
    Decode {
        /// How many ids.
        count: usize,
        /// What the engine said.
        reason: String,
    },
    /// Ordinary text came out as a control token: the tokenizer file is not what it says.
    #[error(
        "ordinary text was encoded as the control token {id}; the tokenizer's vocabulary repeats a special token"
    )]
    ContentBecameControl {
        /// The control token.
        id: u32,
    },
    /// The chat template does not compile.
    #[error("chat template {name}: {reason}")]
    TemplateCompile {
        /// Where the template came from.
        name: String,
        /// What the engine said.
        reason: String,
    },
    /// The chat template refused a conversation.
    #[error("{}the chat template refuses this: {reason}", field.as_ref().map_or_else(String::new, |field| format!("{field}: ")))]
    TemplateRefused {
        /// The first field without which it would not, where there is one: `messages[2]`, `tools`.
        field: Option<String>,
        /// The template's own words, or the engine's.
        reason: String,
    },
    /// The chat template wrote more than any honest conversation gives.
    #[error("the chat template wrote more than {limit} bytes for one conversation")]
    TemplateOutput {
        /// The limit, from [`crate::limits`].
        limit: usize,
    },
    /// The chat template depends on characters that must be hidden from it while content is protected.
    #[error(
        "the chat template treats `<` or `>` inside content specially, so content cannot be kept apart from control tokens"
    )]
    TemplateReadsMarkup,
    /// Every character that could hide control tokens occurs in the content.
    #[error("the content uses every reserved noncharacter, so control tokens inside it cannot be hidden")]
    NoSentinel,
    /// Not a date.
    #[error("`{text}` is not a date of the form YYYY-MM-DD")]
    Date {
        /// The text.
        text: String,
    },
    /// A field of a row is missing or is not what it should be.
    #[error("{field}: {reason}")]
    Field {
        /// The path inside the row, such as `messages[2].thinking`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Ids are not Harmony.
    #[error("not valid Harmony: {0}")]
    Harmony(#[from] ParseError),
    /// A mask left nothing to train on.
    #[error("the mask `{policy}` marks no token")]
    EmptyMask {
        /// The policy's name.
        policy: &'static str,
    },
    /// A loss weight is negative or not a number.
    #[error("loss weight of {channel}: {value} is not a finite number >= 0")]
    Weight {
        /// The channel.
        channel: &'static str,
        /// The value.
        value: f32,
    },
    /// A conversation has no assistant message to learn.
    #[error("the conversation has no assistant message")]
    NoAssistant,
    /// The prompt of a turn is not how its full text begins, and the turn cannot be found otherwise.
    #[error(
        "messages[{message}]: the template renders this turn differently as a prompt, so its reply cannot be identified"
    )]
    AmbiguousTurn {
        /// Index of the assistant message.
        message: usize,
    },
    /// A row is longer than the longest sequence.
    #[error("{tokens} tokens are more than the limit of {limit}")]
    TooLong {
        /// The row's tokens.
        tokens: usize,
        /// The longest sequence.
        limit: usize,
    },
    /// Not one row is left to train on.
    #[error("{}: no row is left to train on", path.display())]
    NothingLeft {
        /// The file.
        path: PathBuf,
    },
    /// Nothing to put in order.
    #[error("no document to pack")]
    NoDocuments,
    /// A line is not a JSON object.
    #[error("not a JSON object: {reason}")]
    Json {
        /// What the parser said.
        reason: String,
    },
    /// A line is longer than any honest one.
    #[error("longer than the limit of {limit} bytes")]
    LineTooLong {
        /// The limit, from [`crate::limits`].
        limit: usize,
    },
    /// A data file is not a data set in a known form.
    #[error("{}: {reason}", path.display())]
    DataFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Examples that were kept cannot be used.
    #[error("the prepared examples cannot be used: {reason}")]
    Store {
        /// Why.
        reason: String,
    },
    /// Something was wrong with one row of a file.
    #[error("{}:{row}: {source}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The line of a text file, the row of a parquet file; the first is 1.
        row: u64,
        /// What was wrong.
        source: Box<Error>,
    },
}

impl Error {
    /// Says where a row came from.
    #[must_use]
    pub fn in_row(self, path: &Path, row: u64) -> Self {
        match self {
            // Already placed: the innermost position is the true one.
            Self::Row { .. } => self,
            other => Self::Row { path: path.to_path_buf(), row, source: Box::new(other) },
        }
    }

    /// A field's path and what is wrong with it.
    pub(crate) fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Field { field: field.into(), reason: reason.into() }
    }

    /// A field that is not of the kind it should be.
    pub(crate) fn wrong(field: impl Into<String>, expected: &str, found: &Json) -> Self {
        let found = match found {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(_) => "a number",
            Json::String(_) => "a text",
            Json::Array(_) => "a list",
            Json::Object(_) => "an object",
        };
        Self::field(field, format!("expected {expected}, found {found}"))
    }
}

/// The text of an error with all its causes, for engines whose error types stay inside this crate.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    text
}
