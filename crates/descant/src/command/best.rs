//! The folders of adapters that a run writes: the last one, and beside it that of the step with the least validation
//! loss, named after its step.

use std::path::{Path, PathBuf};

use descant_lora::LoraAdapters;
use descant_lora::peft::{Base, Manifest};
use descant_model::Config;
use descant_train::Experts;

use crate::run_folder::RunFolder;
use crate::settings::Resolved;

/// What such folders are called, before the step.
const NAME: &str = "best-step-";

/// Writes an adapter, which names the base that it was trained on.
pub(super) fn save(
    adapters: &LoraAdapters,
    path: &Path,
    config: &Config,
    resolved: &Resolved,
) -> descant_lora::Result<Manifest> {
    let (name, revision) = (resolved.base_model(), resolved.base_commit());
    let experts = resolved.settings.train.experts;
    let experts = (experts != Experts::default()).then(|| experts.form().name());
    adapters.save_peft(path, config, Base { name: &name, revision: revision.as_deref(), experts })
}

/// Writes the adapter of a step, and removes that of an earlier one.
pub(super) fn keep(
    folder: &RunFolder,
    step: u64,
    adapters: &LoraAdapters,
    config: &Config,
    resolved: &Resolved,
) -> anyhow::Result<()> {
    let path = folder.join(&format!("{NAME}{step:06}"));
    if path.exists() {
        // Of a process that was stopped after this step; what is written now is the same.
        descant_files::remove(&path)?;
    }
    save(adapters, &path, config, resolved)?;
    for old in all(folder)?.into_iter().filter(|old| *old != path) {
        descant_files::remove(&old)?;
    }
    Ok(())
}

/// As an error of the loop.
pub(super) fn refused(error: anyhow::Error) -> descant_train::Error {
    match error.downcast::<descant_files::Error>() {
        Ok(error) => error.into(),
        Err(error) => descant_train::Error::State(format!("the best adapter cannot be kept: {error:#}")),
    }
}

/// Where the adapter of the best step is, once a run is over.
pub(super) fn path(folder: &RunFolder, step: u64) -> PathBuf {
    folder.join(&format!("{NAME}{step:06}"))
}

fn all(folder: &RunFolder) -> anyhow::Result<Vec<PathBuf>> {
    let names = descant_files::list(folder.path())?;
    Ok(names.iter().filter(|name| name.starts_with(NAME)).map(|name| folder.join(name)).collect())
}
