//! Faults on purpose, for the tests: the N-th change of the file system fails, ends the process, or is the moment
//! at which the power goes.
//!
//! Only with the feature `fault`; without it there is nothing here but [`arm`], which refuses. A fault counts the
//! operations of one thread, because a run changes files from one thread only.

mod effect;
#[cfg(any(test, feature = "fault"))]
mod journal;
#[cfg(any(test, feature = "fault"))]
pub(crate) mod shim;

pub use effect::{Effect, Fault};

/// Runs `subject` with a fault; returns whether it was reached.
#[cfg(any(test, feature = "fault"))]
pub fn with<T>(fault: Fault, subject: impl FnOnce() -> T) -> (T, bool) {
    shim::set(Some(fault));
    let result = subject();
    (result, shim::set(None))
}

/// Sets a fault for the rest of this thread, from text such as `kill:12`, `full:3+` or `broken:0`; a `+` makes it
/// last. For the binary under test.
///
/// # Errors
/// The text is not a fault, or this build has none.
pub fn arm(spec: &str) -> Result<(), String> {
    let wrong = || {
        format!(
            "`{spec}` is not a fault; expected broken:N, full:N, kill:N, panic:N or uncut:0, with + to last"
        )
    };
    let (effect, after) = spec.split_once(':').ok_or_else(wrong)?;
    let effect = match effect {
        "broken" => Effect::Broken,
        "full" => Effect::Full,
        "kill" => Effect::Kill,
        "panic" => Effect::Panic,
        "uncut" => Effect::Uncut,
        _ => return Err(wrong()),
    };
    let (after, lasting) = after.strip_suffix('+').map_or((after, false), |after| (after, true));
    let fault = Fault { after: after.parse().map_err(|_| wrong())?, effect, lasting };
    set(fault)
}

#[cfg(any(test, feature = "fault"))]
#[expect(clippy::unnecessary_wraps, reason = "without the feature it refuses")]
fn set(fault: Fault) -> Result<(), String> {
    shim::set(Some(fault));
    Ok(())
}

#[cfg(not(any(test, feature = "fault")))]
fn set(_fault: Fault) -> Result<(), String> {
    Err("this build has no faults; build with the feature `fault` of descant-files".to_owned())
}
