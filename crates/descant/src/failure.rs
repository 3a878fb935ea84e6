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
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let status = |cause: &(dyn StdError + 'static)| {
            if let Some(hinted) = cause.downcast_ref::<Hinted>() {
                return Some(Self::of(&hinted.error)).filter(|exit| *exit != Self::Error);
            }
            if let Some(descant_train::Error::NotFinite { .. }) = cause.downcast_ref() {
                return Some(Self::Diverged);
            }
            let io = cause.downcast_ref::<std::io::Error>()?;
            (io.kind() == std::io::ErrorKind::OutOfMemory).then_some(Self::OutOfMemory)
        };
        error.chain().find_map(status).unwrap_or(Self::Error)
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

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn an_error_gets_its_status_wherever_it_is_in_the_chain() {
        let diverged =
            || descant_train::Error::NotFinite { step: 3, what: "the loss", value: f32::NAN, rows: vec![] };
        let full = || std::io::Error::from(std::io::ErrorKind::OutOfMemory);
        for (error, exit) in [
            (anyhow!("x"), Exit::Error),
            (anyhow::Error::from(diverged()), Exit::Diverged),
            (anyhow::Error::from(diverged()).context("train"), Exit::Diverged),
            (Hinted::new(diverged(), "lower the rate").into(), Exit::Diverged),
            (anyhow::Error::from(Hinted::new(diverged(), "h")).context("c"), Exit::Diverged),
            (anyhow::Error::from(full()).context("map"), Exit::OutOfMemory),
            (anyhow::Error::from(std::io::Error::from(std::io::ErrorKind::NotFound)), Exit::Error),
        ] {
            assert_eq!(Exit::of(&error), exit, "{error:?}");
        }
    }

    #[test]
    fn hints_come_outermost_first_and_are_no_part_of_the_message() {
        let inner = Hinted::new(anyhow!("cause").context("what"), "inner");
        let error = anyhow::Error::from(inner).context("where");
        let error = anyhow::Error::from(Hinted::new(error, "outer"));
        assert_eq!(hints(&error), ["outer", "inner"]);
        assert_eq!(format!("{error:#}"), "where: what: cause");
    }
}
