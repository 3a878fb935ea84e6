//! The folder of a run: chosen, made, locked, filled, found again.
//!
//! ```text
//! runs/NAME/
//!   identity.json     what run this is: settings, hashes of the model and of the samples, device
//!   config.toml       the settings as resolved
//!   manifest.json     every tensor that is trained
//!   data.json         tokens by channel and language, what was left out, the template's and the tokenizer's SHA-256
//!   metrics.jsonl     a line a step: what equal runs share byte for byte
//!   timing.jsonl      a line a step: what no two runs share
//!   gradients.jsonl   at some steps, the norm of the gradient at each site
//!   checkpoints/      the newest steps, from which the same command continues
//!   choices/          on a card, the algorithms that products were computed with
//!   incident-STEP.json  a step that failed, and where
//!   samples-before.jsonl  what the base replied, batch by batch, so that it is asked once
//!   adapter/          a PEFT directory
//!   experts.json      tokens that each expert of each layer got, from the base and with the adapter
//!   samples-after.jsonl   what the adapter replied
//!   evaluation.json   every figure that follows from the samples
//!   report.html       all of it for people, written at every save and at the end
//!   tensorboard/      the scalars of metrics.jsonl and timing.jsonl as an event file
//!   summary.json      written last: the run is done
//!   lock              held by the process that is at work
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use descant_files::Lock;
use descant_train::checkpoint::Identity;

use crate::failure::Hinted;

/// Longest file of a run that is read back whole.
const MAX_BYTES: u64 = 1 << 30;
const IDENTITY: &str = "identity.json";
const LOCK: &str = "lock";
/// The file whose being there says that the run is done.
pub(crate) const SUMMARY: &str = "summary.json";
/// Tokens by expert, before and after.
pub(crate) const EXPERTS: &str = "experts.json";
/// Figures before and after.
pub(crate) const EVALUATION: &str = "evaluation.json";
/// Replies of the base.
pub(crate) const BEFORE: &str = "samples-before.jsonl";
/// Replies of the adapter.
pub(crate) const AFTER: &str = "samples-after.jsonl";

/// What else a run makes, incidents and temporary files apart.
const MADE: [&str; 14] = [
    "config.toml",
    "manifest.json",
    "data.json",
    "metrics.jsonl",
    "timing.jsonl",
    "checkpoints",
    "choices",
    BEFORE,
    AFTER,
    "adapter",
    EVALUATION,
    "report.html",
    "tensorboard",
    SUMMARY,
];

/// A run folder that exists, is ours, and is locked.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    lock: Lock,
    /// Whether an earlier process of the same run was here.
    pub(crate) goes_on: bool,
}

impl RunFolder {
    /// The folder `wanted`, or the latest `runs/MODEL-N` if it holds this run unfinished, or the next free one. An
    /// earlier run is replaced only with `force`, and continued only if it is this one.
    pub(crate) fn open(wanted: Option<&Path>, model: &str, force: bool, identity: &Identity) -> Result<Self> {
        let Some(path) = wanted else { return Self::latest_or_next(model, force, identity) };
        if !occupied(path)? {
            make(path)?;
            return Self::begin(path, identity);
        }
        let ours = path.join(IDENTITY).is_file();
        if force {
            if !ours {
                let error = anyhow!("{} is not a run folder: it has no {IDENTITY}", path.display());
                return Err(Hinted::new(error, "--force replaces runs only").into());
            }
            // Whoever is at work there keeps it.
            let lock = take(path)?;
            clear(path)?;
            return Self::begin_with(lock, path, identity);
        }
        if !ours {
            let error = anyhow!("{} already contains files", path.display());
            let hint = "set run.folder to another one, or --force to replace a run";
            return Err(Hinted::new(error, hint).into());
        }
        let lock = take(path)?;
        let differences = differences(&read_identity(path)?, identity);
        if !differences.is_empty() {
            let error = descant_train::Error::OtherRun { folder: path.to_owned(), differences };
            let hint = "undo the difference to resume that run, set run.folder to another folder, or \
                        --force to replace that one";
            return Err(Hinted::new(error, hint).into());
        }
        descant_files::sweep(path)?;
        Ok(Self { path: path.to_owned(), lock, goes_on: true })
    }

    /// What the identity of the run that would be resumed says under `name`, which `identity` does not have yet and is
    /// equal to in everything else; nothing where there is no such run.
    pub(crate) fn recorded(
        wanted: Option<&Path>,
        model: &str,
        identity: &Identity,
        name: &str,
    ) -> Option<String> {
        let latest = || (1..u32::MAX).map(|n| numbered(model, n)).take_while(|path| path.exists()).last();
        let path = wanted.map(Path::to_owned).or_else(latest)?;
        let mut there = read_identity(&path).ok()?;
        let at = there.iter().position(|(there, _)| there == name)?;
        let (_, value) = there.remove(at);
        differences(&there, identity).is_empty().then_some(value)
    }

    /// Says at once that another process is at work in a folder, before anything large is read. What counts is the lock
    /// that [`open`](Self::open) takes.
    pub(crate) fn refuse_if_held(path: &Path) -> Result<()> {
        Lock::look(&path.join(LOCK)).map_err(told)
    }

    fn begin(path: &Path, identity: &Identity) -> Result<Self> {
        Self::begin_with(take(path)?, path, identity)
    }

    fn begin_with(lock: Lock, path: &Path, identity: &Identity) -> Result<Self> {
        let folder = Self { path: path.to_owned(), lock, goes_on: false };
        folder.write_json(IDENTITY, identity)?;
        Ok(folder)
    }

    fn latest_or_next(model: &str, force: bool, identity: &Identity) -> Result<Self> {
        let at = |n: u32| numbered(model, n);
        make(Path::new("runs"))?;
        let latest = (1..u32::MAX).take_while(|n| at(*n).exists()).last().map(at);
        if let Some(path) = latest
            && !force
            && !path.join(SUMMARY).exists()
            && read_identity(&path).is_ok_and(|there| differences(&there, identity).is_empty())
            && let Ok(folder) = Self::open(Some(&path), model, false, identity)
        {
            return Ok(folder);
        }
        for n in 1_u32.. {
            match std::fs::create_dir(at(n)) {
                Ok(()) => return Self::begin(&at(n), identity),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).with_context(|| format!("create {}", at(n).display())),
            }
        }
        Err(anyhow!("runs is full"))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A place inside it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The process that was here before and did not leave in order.
    pub(crate) fn left_by(&self) -> Option<&str> {
        self.lock.left_by.as_deref()
    }

    /// Reads a file of an earlier process back, if it is there.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.join(name);
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(descant_files::read_bounded(&path, MAX_BYTES)?))
    }

    /// Writes a file, whole or not at all.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.join(name);
        descant_files::write_atomic(&path, bytes).with_context(|| format!("write {}", path.display()))
    }

    /// Writes a value as JSON for machines and patient people.
    pub(crate) fn write_json(&self, name: &str, value: &impl serde::Serialize) -> Result<()> {
        let mut bytes = serde_json::to_vec_pretty(value)?;
        bytes.push(b'\n');
        self.write(name, &bytes)
    }
}

/// The folder of a run that was given none.
fn numbered(model: &str, n: u32) -> PathBuf {
    Path::new("runs").join(format!("{model}-{n}"))
}

/// Removes what a run made, and nothing that somebody else put there. What says that the folder is a run's stays until
/// it is written again, so that this can be done again when it was cut short.
fn clear(path: &Path) -> Result<()> {
    let reading = || format!("open {}", path.display());
    for entry in std::fs::read_dir(path).with_context(reading)? {
        let entry = entry.with_context(reading)?.path();
        if entry.file_name().and_then(|name| name.to_str()).is_some_and(is_of_a_run) {
            descant_files::remove(&entry).with_context(|| format!("remove {}", entry.display()))?;
        }
    }
    Ok(())
}

/// Whether a run makes what is called so.
fn is_of_a_run(name: &str) -> bool {
    let is_incident = name.strip_prefix("incident-").is_some_and(|rest| rest.strip_suffix(".json").is_some());
    MADE.contains(&name) || is_incident || descant_files::is_temporary(name)
}

fn take(path: &Path) -> Result<Lock> {
    Lock::take(&path.join(LOCK)).map_err(told)
}

/// What can be done about a lock that is held.
fn told(error: descant_files::Error) -> anyhow::Error {
    let descant_files::Error::Locked { path, .. } = &error else { return error.into() };
    let folder = path.parent().unwrap_or(path).display().to_string();
    let hint = "wait for that run or stop it; where its machine is gone, remove the file `lock`";
    Hinted::new(anyhow::Error::from(error).context(format!("{folder} is in use")), hint).into()
}

fn make(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))
}

fn read_identity(path: &Path) -> Result<Identity> {
    let path = path.join(IDENTITY);
    let bytes = descant_files::read_bounded(&path, MAX_BYTES)?;
    let identity: Result<Identity> =
        serde_json::from_slice(&bytes).with_context(|| path.display().to_string());
    let damaged = |error| Hinted::new(error, "put the file back as it was, or --force begins the run again");
    Ok(identity.map_err(damaged)?)
}

/// What is not the same there as here.
fn differences(there: &Identity, here: &Identity) -> Vec<String> {
    descant_train::checkpoint::differences(there, here)
}

/// Whether anything is in a folder but what a process leaves that was stopped before its first file.
fn occupied(path: &Path) -> Result<bool> {
    let mut names = match std::fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.file_name())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).with_context(|| format!("open {}", path.display())),
    };
    let ours =
        |name: &std::ffi::OsStr| name == LOCK || name.to_str().is_some_and(descant_files::is_temporary);
    let other = names.find(|name| !name.as_ref().is_ok_and(|name| ours(name)));
    other.transpose().map(|name| name.is_some()).with_context(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::hints;

    fn identity(seed: &str) -> Identity {
        vec![("train.seed".to_owned(), seed.to_owned())]
    }

    #[test]
    fn a_folder_with_files_is_kept_and_force_removes_what_a_run_made_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        std::fs::create_dir_all(path.join("precious")).unwrap();
        let open = |force| RunFolder::open(Some(&path), "m", force, &identity("1"));
        let error = open(true).unwrap_err();
        assert_eq!(hints(&error), ["--force replaces runs only"]);
        assert!(open(false).unwrap_err().to_string().ends_with("a/b already contains files"));
        descant_files::write_atomic(&path.join("config.toml"), b"x").unwrap();
        assert!(open(true).is_err(), "many things have a config.toml");
        descant_files::write_atomic(&path.join(IDENTITY), b"{}").unwrap();
        descant_files::write_atomic(&path.join("incident-000003.json"), b"x").unwrap();
        std::fs::create_dir_all(path.join("adapter/inner")).unwrap();
        assert!(!open(true).unwrap().goes_on);
        // What a run made is gone, what somebody else put there is not.
        let mut left: Vec<_> =
            std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [IDENTITY, LOCK, "precious"]);
    }

    #[test]
    fn the_same_run_goes_on_another_is_shown_its_difference_and_a_held_one_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let open = |force, seed: &str| RunFolder::open(Some(&path), "m", force, &identity(seed));
        let first = open(false, "1").unwrap();
        assert!(!first.goes_on);
        for force in [false, true] {
            let error = open(force, "1").unwrap_err();
            assert!(format!("{error:#}").contains("in use") && hints(&error).len() == 1, "{error:#}");
        }
        drop(first);
        assert!(open(false, "1").unwrap().goes_on);
        let error = open(false, "2").unwrap_err();
        assert!(error.to_string().ends_with("\n  train.seed: 1 there, 2 now"), "{error}");
        // Stopped before its first file, it is free.
        std::fs::remove_file(path.join(IDENTITY)).unwrap();
        descant_files::write_atomic(&path.join("identity.json.tmp-1-2"), b"{").unwrap();
        assert!(!open(false, "2").unwrap().goes_on);
    }

    #[test]
    fn json_is_readable_and_ends_its_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(Some(dir.path()), "m", false, &identity("1")).unwrap();
        folder.write_json("x.json", &[1]).unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("x.json")).unwrap(), "[\n  1\n]\n");
    }
}
