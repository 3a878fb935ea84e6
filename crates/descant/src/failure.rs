//! How a command ends when it does not end well: exit status, error chain, hints.
//!
//! An exit status is a type, so that every way to stop has a name here and a line in `--help`.

use std::backtrace::Backtrace;
use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

/// Exit status of every command. The texts of `--help` list the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Success,
    /// Done, with a negative result.
    No,
    /// Usage, input, output, or a bug.
    Error,
    /// Loss or gradient is no longer a number.
    Diverged,
    /// The device's memory is too small.
    OutOfMemory,
    /// Stopped by SIGINT; what was done is saved.
    Interrupted,
    /// Stopped by SIGTERM or SIGHUP; what was done is saved.
    Terminated,
}

impl Exit {
    /// The way to end of a process that ended with this number.
    pub(crate) fn of_code(code: i32) -> Self {
        let all =
            [Self::Success, Self::No, Self::Diverged, Self::OutOfMemory, Self::Interrupted, Self::Terminated];
        all.into_iter().find(|exit| i32::from(exit.code()) == code).unwrap_or(Self::Error)
    }

    /// Ends the process without what libraries do at its end.
    #[cfg_attr(not(unix), expect(clippy::exit, reason = "the thread that could return cannot, or must not"))]
    pub(crate) fn at_once(self) -> ! {
        use std::io::Write as _;
        // A reader that has gone has what it wanted.
        let _ = (std::io::stdout().flush(), std::io::stderr().flush());
        let status = i32::from(self.code());
        #[cfg(unix)]
        signal_hook::low_level::exit(status);
        #[cfg(not(unix))]
        std::process::exit(status);
    }

    /// The number the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::No => 1,
            Self::Error => 2,
            Self::Diverged => 3,
            Self::OutOfMemory => 4,
            Self::Interrupted => 130,
            Self::Terminated => 143,
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
            // Another process failed: its status is this one's.
            let member = match cause.downcast_ref() {
                Some(descant_train::Error::Workers(error)) => Some(error),
                _ => cause.downcast_ref::<descant_workers::Error>(),
            };
            if let Some(descant_workers::Error::Member(cause)) = member {
                return cause.status.map(|status| Self::of_code(i32::from(status)));
            }
            // A transparent error hides its cause from the chain: both are asked for by name.
            let device = match cause.downcast_ref() {
                Some(descant_train::Error::NotFinite { .. }) => return Some(Self::Diverged),
                Some(
                    descant_train::Error::Device(error)
                    | descant_train::Error::Model(descant_model::Error::Device(error)),
                ) => Some(error),
                _ => None,
            };
            let device = device.or_else(|| match cause.downcast_ref() {
                Some(descant_model::Error::Device(error)) => Some(error),
                _ => cause.downcast_ref::<descant_kernels::DeviceError>(),
            });
            if device.is_some_and(|error| error.out_of_memory) {
                return Some(Self::OutOfMemory);
            }
            if cause.is::<NotEnoughMemory>() {
                return Some(Self::OutOfMemory);
            }
            let io = cause.downcast_ref::<std::io::Error>()?;
            (io.kind() == std::io::ErrorKind::OutOfMemory).then_some(Self::OutOfMemory)
        };
        error.chain().find_map(status).unwrap_or(Self::Error)
    }
}

/// Runs a command; a panic in it becomes an error, so that it too has its exit status and loses its run nothing.
pub(crate) fn guarded(command: impl FnOnce() -> anyhow::Result<Exit>) -> anyhow::Result<Exit> {
    static SAID: Mutex<Option<String>> = Mutex::new(None);
    // Some panics are caught where they happen, as in crafted tokenizer files: those are nobody's business.
    std::panic::set_hook(Box::new(|panic| {
        let text = format!("{panic}\n{}", Backtrace::capture());
        *SAID.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }));
    let result = catch_unwind(AssertUnwindSafe(command));
    drop(std::panic::take_hook());
    result.unwrap_or_else(|_| {
        let said = SAID.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        Err(Panicked(said.trim_end().to_owned()).into())
    })
}

/// A panic, as an error.
#[derive(Debug)]
struct Panicked(String);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a bug in descant: {}", self.0.replace("\ndisabled backtrace", ""))
    }
}

impl StdError for Panicked {}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A run that would not fit, found before it began.
#[derive(Debug)]
pub(crate) struct NotEnoughMemory(pub(crate) String);

impl fmt::Display for NotEnoughMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for NotEnoughMemory {}

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
        let device = |out_of_memory| descant_kernels::DeviceError { what: "x".into(), out_of_memory };
        let model = |out_of_memory| descant_model::Error::from(device(out_of_memory));
        for (error, exit) in [
            (anyhow!("x"), Exit::Error),
            (descant_train::Error::from(device(true)).into(), Exit::OutOfMemory),
            (descant_train::Error::from(device(false)).into(), Exit::Error),
            (
                anyhow::Error::from(descant_train::Error::from(model(true))).context("train"),
                Exit::OutOfMemory,
            ),
            (anyhow::Error::from(model(true)).context("generate"), Exit::OutOfMemory),
            (anyhow::Error::from(model(false)), Exit::Error),
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
    fn a_panic_is_a_bug_whatever_its_words() {
        for text in ["CUDA_ERROR_OUT_OF_MEMORY", "index out of bounds"] {
            assert_eq!(Exit::of(&Panicked(text.to_owned()).into()), Exit::Error, "{text}");
        }
        assert_eq!((Exit::Interrupted.code(), Exit::Terminated.code()), (130, 143));
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
