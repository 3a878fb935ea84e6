//! What can be done about steps that failed, and about a run that cannot continue.

use descant_kernels::gauge;
use descant_train::Error;

use crate::command::load;
use crate::failure::Hinted;
use crate::words::size;

/// What can be done about steps that failed; of a card that is full, who has it.
pub(super) fn explained(error: Error, device: &load::Chosen) -> anyhow::Error {
    match error.is_full_card().then(|| gauge::shares(&device.device)).flatten() {
        Some(shares) => Hinted::new(error, full(&shares)).into(),
        None => hinted(error),
    }
}

/// An error of another rank with what its card has, where that is what lacks.
pub(super) fn with_shares(error: anyhow::Error, device: &load::Chosen) -> anyhow::Error {
    match error.downcast::<Error>() {
        Ok(error) => explained(error, device),
        Err(error) => error,
    }
}

/// What can be done about a run that cannot continue.
pub(super) fn hinted(error: Error) -> anyhow::Error {
    let hint = match &error {
        Error::NotFinite { .. } => {
            "the incident file says where it begins; lower train.learning_rate for a new run, or leave such steps out \
             with --set guard.skip_non_finite=N"
        }
        Error::NoRoom { .. } => {
            "make room and give the same command again: it resumes from the last checkpoint"
        }
        Error::NoneWhole { .. } => "--force begins the run again",
        Error::OtherRun { .. } => {
            "set run.folder to another one for this run, or --force to replace that one"
        }
        _ => return error.into(),
    };
    Hinted::new(error, hint).into()
}

/// Who has a card that is full, and what to do.
fn full(shares: &gauge::Shares) -> String {
    format!(
        "of the card's {} this process has {}, other programs {} (nvidia-smi names them), and {} are free: make room and \
         give the same command again, which resumes from the last checkpoint",
        size(shares.total),
        size(shares.own),
        size(shares.others()),
        size(shares.free)
    )
}
