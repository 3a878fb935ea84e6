//! The folder of a run: chosen, made, filled.
//!
//! ```text
//! runs/NAME/
//!   config.toml       the settings as resolved; its SHA-256 names the run's configuration
//!   manifest.json     every tensor that is trained
//!   data.json         tokens by channel and language, what was left out, the template's and the tokenizer's SHA-256
//!   metrics.jsonl     a line a step: what equal runs share byte for byte
//!   timing.jsonl      a line a step: what no two runs share
//!   adapter/          a PEFT directory
//!   samples.json      replies before and after
//!   evaluation.json   counts before and after
//!   report.html       all of it for people
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};

use crate::failure::Hinted;

/// A run folder that exists and is ours.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder: `wanted`, or the next free `runs/MODEL-N`. An earlier run is replaced only with `force`.
    pub(crate) fn create(wanted: Option<&Path>, model: &str, force: bool) -> Result<Self> {
        let Some(path) = wanted else { return Self::next_free(model) };
        if occupied(path)? {
            if !force {
                let error = anyhow!("{} holds files already", path.display());
                return Err(
                    Hinted::new(error, "set run.folder to another one, or --force to replace a run").into()
                );
            }
            if !path.join("config.toml").is_file() {
                let error = anyhow!("{} is not a run folder: it has no config.toml", path.display());
                return Err(Hinted::new(error, "--force removes run folders only").into());
            }
            std::fs::remove_dir_all(path).with_context(|| format!("remove {}", path.display()))?;
        }
        std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path: path.to_owned() })
    }

    fn next_free(name: &str) -> Result<Self> {
        std::fs::create_dir_all("runs").context("create runs")?;
        for n in 1_u32.. {
            let path = Path::new("runs").join(format!("{name}-{n}"));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).with_context(|| format!("create {}", path.display())),
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

fn occupied(path: &Path) -> Result<bool> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| format!("open {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::hints;

    #[test]
    fn a_folder_with_files_is_kept_unless_forced_and_only_runs_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let create = |force| RunFolder::create(Some(&path), "m", force);
        let folder = create(false).unwrap();
        assert!(create(false).is_ok(), "an empty folder is free");
        std::fs::create_dir(path.join("precious")).unwrap();
        let error = create(true).unwrap_err();
        assert_eq!(hints(&error), ["--force removes run folders only"]);
        folder.write("config.toml", b"x").unwrap();
        assert!(create(false).unwrap_err().to_string().ends_with("a/b holds files already"));
        assert!(path.join("precious").is_dir());
        create(true).unwrap();
        assert!(!path.join("precious").exists() && path.is_dir());
    }

    #[test]
    fn json_is_readable_and_ends_its_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(Some(dir.path()), "m", false).unwrap();
        folder.write_json("x.json", &[1]).unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("x.json")).unwrap(), "[\n  1\n]\n");
    }
}
