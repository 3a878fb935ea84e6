//! The operations that change the file system, each through one function.
//!
//! Durable writing is an order of these operations. They lie in one place so that a test can make the first, the
//! second, ... of them fail, end the process there or lose what was not yet brought to the disk (see
//! [`fault`](crate::fault)), and look at what is left; errors name the operation and its path.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
#[cfg(any(test, feature = "fault"))]
use crate::fault::shim;

/// Makes a file that must not exist yet.
pub(crate) fn create(path: &Path) -> Result<File> {
    let file = run("create", path, || File::options().write(true).create_new(true).open(path))?;
    #[cfg(any(test, feature = "fault"))]
    shim::created(path);
    Ok(file)
}

/// Opens a file to continue with it, or makes it.
pub(crate) fn open_or_create(path: &Path) -> Result<File> {
    run("open", path, || File::options().read(true).write(true).create(true).truncate(false).open(path))
}

/// Makes a folder that must not exist yet, in one that does.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    run("create", path, || std::fs::create_dir(path))?;
    #[cfg(any(test, feature = "fault"))]
    shim::created(path);
    Ok(())
}

/// Writes all of `bytes` at the file's position.
pub(crate) fn write(path: &Path, file: &mut File, bytes: &[u8]) -> Result<()> {
    #[cfg(any(test, feature = "fault"))]
    shim::writing(path, file, bytes);
    run("write", path, || file.write_all(bytes))
}

/// Brings a file's content and length to the disk.
pub(crate) fn sync(path: &Path, file: &File) -> Result<()> {
    run("sync", path, || file.sync_all())?;
    #[cfg(any(test, feature = "fault"))]
    shim::synced(path);
    Ok(())
}

/// Brings a folder's names to the disk.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    // Elsewhere a folder cannot be opened as a file, and renaming is durable by itself or not at all.
    run("sync", path, || if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) })?;
    #[cfg(any(test, feature = "fault"))]
    shim::synced_dir(path);
    Ok(())
}

/// Gives a file or folder another name.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    #[cfg(any(test, feature = "fault"))]
    let replaced = shim::replaced(to);
    run("rename", to, || std::fs::rename(from, to))?;
    #[cfg(any(test, feature = "fault"))]
    shim::renamed(from, to, replaced);
    Ok(())
}

/// Gives a file a second name unless something has it; returns whether it did. The first name is left where that is a
/// hard link, and gone where the file system has none.
pub(crate) fn rename_first(from: &Path, to: &Path) -> Result<bool> {
    use std::io::ErrorKind;
    let made = run("link", to, || match std::fs::hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        // What vfat, and shares of other systems, say.
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
            if to.symlink_metadata().is_ok() {
                return Ok(false);
            }
            std::fs::rename(from, to).map(|()| true)
        }
        Err(error) => Err(error),
    })?;
    #[cfg(any(test, feature = "fault"))]
    if made {
        shim::created(to);
        shim::synced(to);
    }
    Ok(made)
}

/// Cuts a file to `length`.
pub(crate) fn set_len(path: &Path, file: &File, length: u64) -> Result<()> {
    #[cfg(any(test, feature = "fault"))]
    if shim::forgets_cuts() {
        return Ok(());
    }
    run("truncate", path, || file.set_len(length))?;
    #[cfg(any(test, feature = "fault"))]
    shim::cut(path, length);
    Ok(())
}

/// Removes a file, or a folder with everything in it.
pub(crate) fn remove(path: &Path) -> Result<()> {
    run("remove", path, || {
        if path.symlink_metadata()?.is_dir() {
            std::fs::remove_dir_all(path)
        } else {
            std::fs::remove_file(path)
        }
    })?;
    #[cfg(any(test, feature = "fault"))]
    shim::removed(path);
    Ok(())
}

/// Removes what a failed write left; its own failure is not reported, the first one matters.
pub(crate) fn clean_up(path: &Path) {
    #[cfg(any(test, feature = "fault"))]
    if shim::is_down() {
        return;
    }
    let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    #[cfg(any(test, feature = "fault"))]
    shim::removed(path);
}

/// A provisional name in the same folder that nobody else uses.
pub(crate) fn temporary_beside(path: &Path) -> Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path has no last part");
        return Err(Error::Io { operation: "create", path: path.to_owned(), source });
    };
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut temporary = OsString::from(name);
    temporary.push(format!(".tmp-{}-{count}", std::process::id()));
    Ok(path.with_file_name(temporary))
}

/// The folder that a path lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn run<T>(operation: &'static str, path: &Path, op: impl FnOnce() -> std::io::Result<T>) -> Result<T> {
    #[cfg(any(test, feature = "fault"))]
    let op = || shim::strike().and_then(|()| op());
    op().map_err(|source| Error::Io { operation, path: path.to_owned(), source })
}
