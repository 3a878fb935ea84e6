//! Where an export goes: a new folder, or one file with small ones beside it. Whole, or not at all.
//!
//! ```text
//! PATH            a folder; its files have the names that readers expect
//! PATH.gguf       for the forms that are one file: that file, and PATH.export.json, PATH.Modelfile beside it
//! ```
//!
//! Everything is written under a temporary name in the same folder and then renamed. What is there is replaced on
//! request, and only if it is an export itself. What an export that was killed left is removed by the next one.

use std::path::{Path, PathBuf};

use descant_files::{Growing, NewDir, RelPath, free_bytes};

use crate::error::{Error, Result};

/// The account of an export, in every folder of one.
pub const REPORT_FILE: &str = "export.json";
/// Ollama's file beside a model.
pub(crate) const MODELFILE: &str = "Modelfile";
/// Room for what is not counted beforehand: headers, index, account, card.
const SLACK: u64 = 1 << 20;

/// A place that is being filled.
pub(crate) struct Target {
    path: PathBuf,
    new: NewDir,
    force: bool,
    /// Names of what was written.
    names: Vec<String>,
}

/// Whether `path` means a single file.
pub(crate) fn is_file(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "gguf")
}

impl Target {
    /// Checks that the place is free, or may be freed, and the disk large enough.
    pub(crate) fn open(path: &Path, sources: &[&Path], force: bool, bytes: u64) -> Result<Self> {
        if let Some(standing) = files_of(path).iter().find(|path| path.symlink_metadata().is_ok()) {
            if !force {
                return Err(Error::Exists { path: standing.clone() });
            }
            replaceable(path, sources)?;
        }
        // A temporary folder's own name, so that a file that is there is no obstacle until the end.
        let beside =
            path.with_file_name(format!("{}.export", path.file_name().unwrap_or_default().to_string_lossy()));
        for stopped in [path, &beside] {
            descant_files::sweep_stopped(stopped)?;
        }
        let needed = bytes.saturating_add(SLACK);
        if let Some(free) = free_bytes(path)?
            && free < needed
        {
            return Err(Error::Room { path: path.to_owned(), needed, free });
        }
        let new =
            NewDir::create(if path.symlink_metadata().is_ok() || is_file(path) { &beside } else { path })?;
        Ok(Self { path: path.to_owned(), new, force, names: Vec::new() })
    }

    /// The name that the one file of a form gets.
    pub(crate) fn file_name(&self, in_folder: &str) -> String {
        match self.path.file_name() {
            Some(name) if is_file(&self.path) => name.to_string_lossy().into_owned(),
            _ => in_folder.to_owned(),
        }
    }

    /// The name of a small file beside the one.
    pub(crate) fn beside(&self, name: &str) -> String {
        if !is_file(&self.path) {
            return name.to_owned();
        }
        let path = self.path.with_extension(name);
        path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Starts a file.
    pub(crate) fn start(&mut self, name: &str) -> Result<Growing> {
        self.names.push(name.to_owned());
        Ok(self.new.start(&RelPath::new(name)?)?)
    }

    /// Writes a small file.
    pub(crate) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.names.push(name.to_owned());
        Ok(self.new.write(&RelPath::new(name)?, bytes)?)
    }

    /// Gives everything its name.
    pub(crate) fn commit(self) -> Result<()> {
        if !is_file(&self.path) {
            let named = if self.force { self.new.replace_at(&self.path) } else { self.new.commit() };
            return Ok(named?);
        }
        // The large file comes last and goes first: without it the small ones are nothing.
        for old in files_of(&self.path).iter().filter(|path| path.symlink_metadata().is_ok()) {
            if !self.force {
                return Err(Error::Exists { path: old.clone() });
            }
            descant_files::remove(old)?;
        }
        let mut names = self.names.clone();
        names.sort_by_key(|name| is_file(Path::new(name)));
        for name in names {
            descant_files::rename(&self.new.temporary().join(&name), &self.path.with_file_name(&name))?;
        }
        Ok(())
    }
}

/// What an export to `path` may consist of, the large file first.
fn files_of(path: &Path) -> Vec<PathBuf> {
    let mut files = vec![path.to_owned()];
    if is_file(path) {
        files.extend([REPORT_FILE, MODELFILE].map(|ending| path.with_extension(ending)));
    }
    files
}

/// Whether what is at `path` may go.
fn replaceable(path: &Path, sources: &[&Path]) -> Result<()> {
    let refused = |reason| Err(Error::NotReplaced { path: path.to_owned(), reason });
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let standing = real(path);
    if sources.iter().any(|source| real(source).starts_with(&standing)) {
        return refused("it contains the adapter or model to export");
    }
    if is_file(path) {
        return if path.is_dir() { refused("it is a folder") } else { Ok(()) };
    }
    let empty = descant_files::list(path).is_ok_and(|names| names.is_empty());
    if !path.is_dir() || (!path.join(REPORT_FILE).is_file() && !empty) {
        return refused("it is not an export: it has no export.json");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_too_small_is_refused_before_anything_is_made() {
        let dir = descant_testkit::scratch();
        for name in ["out", "out.gguf"] {
            let path = dir.path().join(name);
            let refused = Target::open(&path, &[], false, 1 << 60);
            assert!(
                matches!(refused, Err(Error::Room { needed, free, .. }) if needed > 1 << 60 && free < needed)
            );
            assert!(descant_files::list(dir.path()).unwrap().is_empty());
            assert!(Target::open(&path, &[], false, 1).is_ok());
        }
    }
}
