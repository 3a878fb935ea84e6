//! Files and folders that appear completely or not at all.
//!
//! The new content is written under a temporary name in the same folder, brought to the disk, and only then given
//! its name, which the file system does in one step. Whoever looks sees the old, or the new and whole.
//!
//! | stopped | what is there |
//! |---|---|
//! | by an error | what was there before; nothing of ours (an error after the renaming: the new, perhaps not durable) |
//! | by kill -9 or loss of power | what was there before, perhaps a `NAME.tmp-PID-N` that nobody reads |
//!
//! Two writers of one name leave one of their contents. A new folder is locked while it has no name, so that
//! [`sweep_stopped`] distinguishes one whose writer is gone from one that is being filled.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::ops;
use crate::rel_path::RelPath;

/// Replaces, or makes, the file at `path`.
///
/// # Errors
/// An operation was refused. The file is as it was, or has the new content whole, and nothing else is left.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = ops::temporary_beside(path)?;
    let written = write_synced(&temporary, bytes).and_then(|()| ops::rename(&temporary, path));
    if let Err(error) = written {
        ops::clean_up(&temporary);
        return Err(error);
    }
    ops::sync_dir(ops::folder_of(path))
}

/// Makes the file at `path` unless something is there. Of several who try at once one does, and all others find its
/// content. Where the file system has no hard links, two at the very same moment may both believe that they were first.
///
/// Returns whether this call made it.
///
/// # Errors
/// An operation was refused. Nothing is at `path`, or a whole content, and nothing else is left.
pub fn write_first(path: &Path, bytes: &[u8]) -> Result<bool> {
    let temporary = ops::temporary_beside(path)?;
    let made = write_synced(&temporary, bytes).and_then(|()| ops::rename_first(&temporary, path));
    ops::clean_up(&temporary);
    if made? {
        ops::sync_dir(ops::folder_of(path))?;
        return Ok(true);
    }
    Ok(false)
}

/// A folder of files on its way to its name.
///
/// Dropped before [`commit`](Self::commit), it leaves nothing.
#[derive(Debug)]
pub struct NewDir {
    path: PathBuf,
    /// `None` once the folder has its name.
    temporary: Option<PathBuf>,
    /// Folders made inside, to be brought to the disk with their names.
    folders: BTreeSet<PathBuf>,
    /// Gone with the value, or with the process; `None` where the system does not lock folders.
    _lock: Option<File>,
}

/// A new folder is taken by a sweep before it is locked; so often another one is made.
const TRIES: usize = 8;

/// What became of locking a folder against others who ask in this way.
enum Locked {
    Ours(File),
    /// Another has the lock, or had it and removed the folder.
    Lost,
    /// The system does not lock folders.
    Never,
}

fn lock(folder: &Path) -> Locked {
    match File::open(folder) {
        Ok(file) => match file.try_lock() {
            // Whoever had the lock before may have removed the folder.
            Ok(()) if folder.is_dir() => Locked::Ours(file),
            Ok(()) | Err(TryLockError::WouldBlock) => Locked::Lost,
            Err(TryLockError::Error(_)) => Locked::Never,
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Locked::Lost,
        Err(_) => Locked::Never,
    }
}

/// Removes the temporary folders in a folder whose writers were stopped, whatever they were to be, and returns how
/// many.
///
/// # Errors
/// The system refuses.
pub fn sweep_stopped_in(folder: &Path) -> Result<usize> {
    sweep(folder, |_| true)
}

/// Removes the temporary folders that writers of `path` left who were stopped, and returns how many.
///
/// # Errors
/// The system refuses.
pub fn sweep_stopped(path: &Path) -> Result<usize> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(0) };
    let is_ours = |found: &str| found.strip_prefix(name).is_some_and(|rest| rest.starts_with(".tmp-"));
    sweep(ops::folder_of(path), is_ours)
}

fn sweep(parent: &Path, chosen: impl Fn(&str) -> bool) -> Result<usize> {
    let mut swept = 0;
    // A folder that cannot be listed may still take a new name.
    let names = crate::folder::list(parent).unwrap_or_default();
    for found in names.iter().filter(|found| crate::folder::is_temporary(found) && chosen(found)) {
        let folder = parent.join(found);
        if !folder.is_dir() {
            continue;
        }
        if let Locked::Ours(_lock) = lock(&folder) {
            ops::remove(&folder)?;
            swept += 1;
        }
    }
    Ok(swept)
}

impl NewDir {
    /// Starts a folder that will be at `path`, in a folder that exists.
    ///
    /// # Errors
    /// Something is at `path`, or the temporary folder cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: path.to_owned() });
        }
        let mut temporary = ops::temporary_beside(path)?;
        for _ in 0..TRIES {
            ops::create_dir(&temporary)?;
            let lock = match lock(&temporary) {
                Locked::Ours(lock) => Some(lock),
                Locked::Never => None,
                Locked::Lost => {
                    temporary = ops::temporary_beside(path)?;
                    continue;
                }
            };
            let folders = BTreeSet::from([temporary.clone()]);
            return Ok(Self { path: path.to_owned(), temporary: Some(temporary), folders, _lock: lock });
        }
        let source = std::io::Error::other("every new folder was swept by another process");
        Err(Error::Io { operation: "create", path: temporary, source })
    }

    /// Writes one file and brings it to the disk; folders of its name are made.
    ///
    /// # Errors
    /// The name was given before, or an operation was refused.
    pub fn write(&mut self, name: &RelPath, bytes: &[u8]) -> Result<()> {
        let mut file = self.start(name)?;
        file.append(bytes)?;
        file.finish()
    }

    /// Starts a file that is written piece by piece; folders of its name are made.
    ///
    /// # Errors
    /// The name was given before, or an operation was refused.
    pub fn start(&mut self, name: &RelPath) -> Result<Growing> {
        let mut folder = self.temporary().to_owned();
        let (parents, file) = name.as_str().rsplit_once('/').unwrap_or(("", name.as_str()));
        for part in parents.split('/').filter(|part| !part.is_empty()) {
            folder.push(part);
            if !self.folders.contains(&folder) {
                ops::create_dir(&folder)?;
                self.folders.insert(folder.clone());
            }
        }
        Growing::create(folder.join(file))
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// Something came to be there meanwhile, or an operation was refused; then nothing is left.
    pub fn commit(mut self) -> Result<()> {
        for folder in &self.folders {
            ops::sync_dir(folder)?;
        }
        // The system would put a new folder over an empty one without asking.
        if self.path.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: self.path.clone() });
        }
        ops::rename(self.temporary(), &self.path)?;
        self.temporary = None;
        ops::sync_dir(ops::folder_of(&self.path))
    }

    /// Gives the folder the name `path`, which lies in the same folder; what is there is removed, once all that is
    /// new is on the disk.
    ///
    /// # Errors
    /// An operation was refused; then the old is there, or the new, or for the moment between them neither.
    pub fn replace_at(mut self, path: &Path) -> Result<()> {
        for folder in &self.folders {
            ops::sync_dir(folder)?;
        }
        if path.symlink_metadata().is_ok() {
            crate::folder::remove(path)?;
        }
        path.clone_into(&mut self.path);
        self.commit()
    }

    /// Where the files are until then.
    pub fn temporary(&self) -> &Path {
        self.temporary.as_deref().expect("only commit takes it, and commit consumes the folder")
    }
}

impl Drop for NewDir {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            ops::clean_up(temporary);
        }
    }
}

/// A file of a [`NewDir`] that is being written.
#[derive(Debug)]
pub struct Growing {
    path: PathBuf,
    file: File,
}

impl Growing {
    fn create(path: PathBuf) -> Result<Self> {
        let file = ops::create(&path)?;
        Ok(Self { path, file })
    }

    /// Writes at the end.
    ///
    /// # Errors
    /// The system refuses.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        ops::write(&self.path, &mut self.file, bytes)
    }

    /// Brings the content to the disk.
    ///
    /// # Errors
    /// The system refuses.
    pub fn finish(self) -> Result<()> {
        ops::sync(&self.path, &self.file)
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = Growing::create(path.to_owned())?;
    file.append(bytes)?;
    file.finish()
}

#[cfg(test)]
mod tests;
