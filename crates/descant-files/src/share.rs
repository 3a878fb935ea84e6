//! What a folder that several programs use needs: locks, links, and how much room is left.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::ops;

/// A lock that other programs respect who lock the same file; gone when dropped, also when the process dies.
#[derive(Debug)]
pub struct FileLock {
    pub(crate) file: File,
}

impl FileLock {
    /// Takes the lock of the file at `path`, which is made when it is not there; `None` when another has it.
    ///
    /// # Errors
    /// The file cannot be made, or its file system knows no locks.
    pub fn try_acquire(path: &Path) -> Result<Option<Self>> {
        let io = |operation, source| Error::Io { operation, path: path.to_owned(), source };
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|e| io("open", e))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(io("lock", e)),
        }
    }
}

/// Makes a folder and those above it, unless they are there.
///
/// # Errors
/// The system refuses, or something else is there.
pub fn create_dirs(path: &Path) -> Result<()> {
    let io = |source| Error::Io { operation: "create", path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(io)
}

/// Makes `link` lead to `target`, which is relative to the folder of `link`. What were there is replaced in one
/// step. Where there are no symbolic links, the target is linked hard, or copied.
///
/// # Errors
/// The system refuses.
pub fn link_relative(target: &Path, link: &Path) -> Result<()> {
    let folder = ops::folder_of(link);
    let temporary = ops::temporary_beside(link)?;
    let absolute = folder.join(target);
    let made = symlink(target, &temporary)
        .or_else(|_| std::fs::hard_link(&absolute, &temporary))
        .or_else(|_| std::fs::copy(&absolute, &temporary).map(drop));
    made.map_err(|source| Error::Io { operation: "link", path: link.to_owned(), source })?;
    ops::rename(&temporary, link).inspect_err(|_| ops::clean_up(&temporary))?;
    ops::sync_dir(folder)
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Bytes that an ordinary user may still write where `path` is or will be; `None` where the system does not report it.
///
/// # Errors
/// The system refuses to look.
pub fn free_bytes(path: &Path) -> Result<Option<u64>> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let existing: PathBuf = absolute.ancestors().find(|p| p.exists()).unwrap_or(&absolute).to_owned();
    #[cfg(unix)]
    {
        let stat = rustix::fs::statvfs(&existing).map_err(|e| Error::Io {
            operation: "look at",
            path: existing,
            source: e.into(),
        })?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }
    #[cfg(not(unix))]
    {
        let _ = existing;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_had_by_one() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.lock");
        let first = FileLock::try_acquire(&path).unwrap();
        assert!(first.is_some());
        assert!(FileLock::try_acquire(&path).unwrap().is_none());
        drop(first);
        assert!(FileLock::try_acquire(&path).unwrap().is_some());
    }

    #[test]
    fn a_link_leads_to_its_target_and_replaces_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("snapshots/abc");
        create_dirs(&folder).unwrap();
        create_dirs(&folder).unwrap();
        create_dirs(&root.path().join("blobs")).unwrap();
        for (name, bytes) in [("one", b"1"), ("two", b"2")] {
            crate::write_atomic(&root.path().join("blobs").join(name), bytes).unwrap();
            let link = folder.join("file");
            link_relative(&Path::new("../../blobs").join(name), &link).unwrap();
            assert_eq!(crate::read_bounded(&link, 10).unwrap(), bytes);
        }
        assert_eq!(folder.read_dir().unwrap().count(), 1, "no temporary name is left");
    }

    #[test]
    fn room_is_told_for_folders_that_do_not_exist_yet() {
        let root = tempfile::tempdir().unwrap();
        let free = free_bytes(&root.path().join("a/b/c")).unwrap();
        assert_eq!(free.is_some(), cfg!(unix));
        assert!(free.is_none_or(|bytes| bytes > 0));
    }
}
