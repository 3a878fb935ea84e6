//! How a command ends when it does not end well: exit status, error chain, hints.
//!
//! An exit status is a type, so that every way to stop has a name here and a line in `--help`.

use std::error::Error as StdError;
use std::fmt;
use std::process::ExitCode;

/// Exit status of every command. The texts of `--help` list the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Success,
    /// Done, and the answer is no.
    No,
    /// Usage, input, output, or a bug.
    Error,
    /// Loss or gradient is no longer a number.
    Diverged,
    /// The device's memory is too small.
    OutOfMemory,
}

impl Exit {
    /// The number the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::No => 1,
            Self::Error => 2,
            Self::Diverged => 3,
            Self::OutOfMemory => 4,
        }
    }
}

impl Exit {
    /// The status that an error deserves.
    pub(crate) fn of(_error: &anyhow::Error) -> Self {
        Self::Error
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error with advice. Displays as the error it wraps.
#[derive(Debug)]
pub(crate) struct Hinted {
    error: anyhow::Error,
    hint: String,
}

impl Hinted {
    /// Adds one actionable sentence, without a full stop.
    pub(crate) fn new(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> Self {
        Self { error: error.into(), hint: hint.into() }
    }
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl StdError for Hinted {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

/// Every hint in the chain, outermost first.
pub(crate) fn hints(error: &anyhow::Error) -> Vec<&str> {
    error.chain().filter_map(|cause| cause.downcast_ref::<Hinted>()).map(|h| h.hint.as_str()).collect()
}
