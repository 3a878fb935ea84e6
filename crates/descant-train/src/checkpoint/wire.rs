//! A checkpoint as one message, for processes that have none of the run's files.
//!
//! The parts are those of the folder, each behind its length; what comes is checked as a folder's is.

use descant_lora::LoraAdapters;

use super::defect::Defect;
use super::{Checkpoint, Progress, state, tensors};
use crate::state::TrainerState;

/// The message.
pub(crate) fn pack(adapters: &LoraAdapters, trainer: &TrainerState, progress: &Progress) -> Vec<u8> {
    let parts = [
        state::write(trainer, progress),
        tensors::adapter(adapters, trainer),
        tensors::optimizer(adapters, trainer),
    ];
    let behind_its_length = |part: Vec<u8>| [&(part.len() as u64).to_le_bytes()[..], &part].concat();
    parts.into_iter().flat_map(behind_its_length).collect()
}

/// The checkpoint of a message; logs are not in it.
///
/// # Errors
/// It is none, or one of other adapters.
pub(crate) fn unpack(adapters: &LoraAdapters, bytes: &[u8]) -> Result<Checkpoint, Defect> {
    let mut rest = bytes;
    let mut part = || {
        let cut = || Defect::State("the message is cut".to_owned());
        let (length, behind) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| cut())?;
        let (part, behind) = behind.split_at_checked(length).ok_or_else(cut)?;
        rest = behind;
        Ok::<_, Defect>(part)
    };
    let (state, adapter, optimizer) = (part()?, part()?, part()?);
    let (mut trainer, progress) = state::read(state)?;
    tensors::read(adapters, &mut trainer, adapter, optimizer)?;
    trainer.check(adapters).map_err(Defect::State)?;
    Ok(Checkpoint { trainer, progress, logs: super::LogLengths::new() })
}
