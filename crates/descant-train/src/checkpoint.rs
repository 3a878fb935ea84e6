//! Checkpoints: everything that a run knows, at a step's end, in a folder that exists completely or not at all.
//!
//! ```text
//! RUN/checkpoints/step-000120/
//!   adapter.safetensors      every trainable tensor, f32
//!   optimizer.safetensors    both moments of each, f32 or 8-bit as the optimizer keeps them
//!   state.json               steps, position in the data, guard window, proof of gradients
//!   manifest.json            written last: format, step, what run this is, lengths and SHA-256 of the above,
//!                            lengths of the run's logs at this step
//! ```
//!
//! All of it is written under a temporary name, each file brought to the disk, then renamed, then the older ones
//! beyond those to keep are removed. The base model is not in it: the run's identity names its files' hashes.
//! Resuming takes the newest whole one; one that is not whole is reported, renamed and passed over.

mod defect;
mod form;
mod manifest;
mod state;
mod tensors;
mod wire;

use std::path::{Path, PathBuf};

use descant_files::{NewDir, RelPath};
use descant_lora::LoraAdapters;

pub use defect::Defect;
use form::{ADAPTER, OPTIMIZER};
pub use form::{FORMAT, Identity, KEEP_AT_LEAST, LogLengths};
use manifest::Manifest;
pub use manifest::differences;
pub use state::Progress;
pub(crate) use wire::{pack, unpack};

use crate::error::{Error, Result};
use crate::state::TrainerState;

/// Longest `manifest.json` and `state.json`.
const MAX_JSON_BYTES: u64 = 16 << 20;
/// Longest tensor file.
const MAX_TENSOR_BYTES: u64 = 64 << 30;
/// A checkpoint is not begun unless its size times this is free: the disk is not ours alone.
const ROOM: u64 = 2;

const MANIFEST: &str = "manifest.json";
const STATE: &str = "state.json";

/// The checkpoints of a run.
#[derive(Debug, Clone)]
pub struct Store {
    /// The run's folder.
    pub run: PathBuf,
    /// What run this is.
    pub identity: Identity,
    /// Checkpoints that are kept; fewer than [`KEEP_AT_LEAST`] is taken for that.
    pub keep: usize,
}

/// A checkpoint that was read and is whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The trainer.
    pub trainer: TrainerState,
    /// The loop.
    pub progress: Progress,
    /// How long the run's logs were.
    pub logs: LogLengths,
}

impl Store {
    /// Where the checkpoints lie.
    pub fn folder(&self) -> PathBuf {
        self.run.join("checkpoints")
    }

    /// The newest whole checkpoint, if there is any, for a run that begins with `adapters`. Sweeps what stopped
    /// writers left, and renames one that is not whole; `told` receives both.
    ///
    /// # Errors
    /// The checkpoints are of another run or a newer format, or there are some and none is whole.
    pub fn newest(&self, adapters: &LoraAdapters, told: &mut dyn FnMut(&str)) -> Result<Option<Checkpoint>> {
        let folder = self.folder();
        if !folder.is_dir() {
            return Ok(None);
        }
        descant_files::sweep(&folder)?;
        let steps = self.steps()?;
        let mut newest_defect = None;
        for (step, name) in steps.iter().rev() {
            let path = folder.join(name);
            match self.read(&path, *step, adapters) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(Error::Checkpoint { defect, .. }) if !defect.is_final() => {
                    told(&format!("checkpoint {}: {defect}; it is passed over", path.display()));
                    newest_defect.get_or_insert(defect.to_string());
                    let aside = folder.join(format!("{name}.damaged"));
                    if aside.exists() {
                        descant_files::remove(&aside)?;
                    }
                    descant_files::rename(&path, &aside)?;
                }
                Err(error) => return Err(error),
            }
        }
        match newest_defect {
            None => Ok(None),
            Some(newest) => Err(Error::NoneWhole { folder, count: steps.len(), newest }),
        }
    }

    /// Writes a checkpoint, and then removes the oldest beyond those to keep.
    ///
    /// # Errors
    /// The disk has no room, or refuses. What was there before is still there.
    pub fn save(
        &self,
        adapters: &LoraAdapters,
        trainer: &TrainerState,
        progress: &Progress,
        logs: LogLengths,
        told: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let folder = self.folder();
        descant_files::make(&folder)?;
        let path = folder.join(name_of(trainer.steps));
        let files = [
            (ADAPTER, tensors::adapter(adapters, trainer)),
            (OPTIMIZER, tensors::optimizer(adapters, trainer)),
            (STATE, state::write(trainer, progress)),
        ];
        let needed = ROOM * files.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        if let Some(free) = descant_files::free_bytes(&folder)?
            && free < needed
        {
            return Err(Error::NoRoom { folder, needed, free });
        }
        let mut dir = NewDir::create(&path)?;
        for (name, bytes) in &files {
            dir.write(&RelPath::new(name)?, bytes)?;
        }
        let manifest = Manifest::new(trainer.steps, &self.identity, logs, &files);
        dir.write(&RelPath::new(MANIFEST)?, &manifest.to_bytes())?;
        dir.commit()?;
        // The new one is safe from here on. That an old one cannot be removed is not a reason to stop.
        if let Err(error) = self.prune() {
            told(&format!("an old checkpoint stays: {error}"));
        }
        Ok(())
    }

    fn prune(&self) -> Result<()> {
        let steps = self.steps()?;
        let surplus = steps.len().saturating_sub(self.keep.max(KEEP_AT_LEAST));
        for (_, name) in &steps[..surplus] {
            descant_files::remove(&self.folder().join(name))?;
        }
        Ok(())
    }

    /// Step and name of each checkpoint, oldest first.
    fn steps(&self) -> Result<Vec<(u64, String)>> {
        let names = descant_files::list(&self.folder())?;
        let mut steps: Vec<_> = names.into_iter().filter_map(|name| Some((step_of(&name)?, name))).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    fn read(&self, path: &Path, step: u64, adapters: &LoraAdapters) -> Result<Checkpoint> {
        let defect = |defect| Error::Checkpoint { path: path.to_owned(), defect };
        let bounded = |name: &str, limit| {
            let file = path.join(name);
            descant_files::read_bounded(&file, limit).map_err(|e| defect(Defect::Unreadable(e.to_string())))
        };
        let manifest = Manifest::parse(&bounded(MANIFEST, MAX_JSON_BYTES)?).map_err(defect)?;
        if manifest.step != step {
            return Err(defect(Defect::Manifest(format!("it is of step {}", manifest.step))));
        }
        let differences = manifest.differences(&self.identity);
        if !differences.is_empty() {
            return Err(Error::OtherRun { folder: self.run.clone(), differences });
        }
        let file = |name: &'static str, limit| {
            let bytes = bounded(name, limit)?;
            manifest.check(name, &bytes).map_err(defect)?;
            Ok::<_, Error>(bytes)
        };
        let (mut trainer, progress) = state::read(&file(STATE, MAX_JSON_BYTES)?).map_err(defect)?;
        tensors::read(
            adapters,
            &mut trainer,
            &file(ADAPTER, MAX_TENSOR_BYTES)?,
            &file(OPTIMIZER, MAX_TENSOR_BYTES)?,
        )
        .map_err(defect)?;
        if trainer.steps != step {
            return Err(defect(Defect::State(format!("it is of step {}", trainer.steps))));
        }
        trainer.check(adapters).map_err(|reason| defect(Defect::State(reason)))?;
        Ok(Checkpoint { trainer, progress, logs: manifest.logs })
    }
}

fn name_of(step: u64) -> String {
    format!("step-{step:06}")
}

fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (name_of(step) == name).then_some(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_are_steps() {
        for (name, step) in [("step-000007", Some(7)), ("step-1000000", Some(1_000_000))] {
            assert_eq!(step_of(name), step);
        }
        for name in ["step-7", "step-+00007", "step-000007.damaged", "step-000007.tmp-1-2", "step-", "x"] {
            assert_eq!(step_of(name), None, "{name}");
        }
    }
}
