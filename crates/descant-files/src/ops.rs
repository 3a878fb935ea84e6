//! The operations that change the file system, each through one function.
//!
//! Durable writing is an order of these operations. They lie in one place so that a test can make the first, the
//! second, ... of them fail and look at what is left; errors name the operation and its path.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Makes a file that must not exist yet.
pub(crate) fn create(path: &Path) -> Result<File> {
    run("create", path, || File::options().write(true).create_new(true).open(path))
}

/// Opens a file to go on with it, or makes it.
pub(crate) fn open_or_create(path: &Path) -> Result<File> {
    run("open", path, || File::options().read(true).write(true).create(true).truncate(false).open(path))
}

/// Makes a folder that must not exist yet, in one that does.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    run("create", path, || std::fs::create_dir(path))
}

/// Writes all of `bytes` where the file stands.
pub(crate) fn write(path: &Path, file: &mut File, bytes: &[u8]) -> Result<()> {
    #[cfg(test)]
    if fault::short_write(file, bytes) {
        return run("write", path, || Err(fault::error()));
    }
    run("write", path, || file.write_all(bytes))
}

/// Brings a file's content and length to the disk.
pub(crate) fn sync(path: &Path, file: &File) -> Result<()> {
    run("sync", path, || file.sync_all())
}

/// Brings a folder's names to the disk.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    // Elsewhere a folder cannot be opened as a file, and renaming is durable by itself or not at all.
    run("sync", path, || if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) })
}

/// Gives a file or folder another name.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    run("rename", to, || std::fs::rename(from, to))
}

/// Cuts a file to `length`.
pub(crate) fn set_len(path: &Path, file: &File, length: u64) -> Result<()> {
    run("truncate", path, || file.set_len(length))
}

/// Removes what a failed write left; its own failure is not reported, the first one matters.
pub(crate) fn clean_up(path: &Path) {
    let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
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
    #[cfg(test)]
    let op = || fault::strike().and_then(|()| op());
    op().map_err(|source| Error::Io { operation, path: path.to_owned(), source })
}

/// Makes the n-th operation of this thread fail.
#[cfg(test)]
pub(crate) mod fault {
    use std::cell::Cell;
    use std::fs::File;
    use std::io::Write;

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// Runs `subject` with the `n`-th operation (from 0) failing; tells whether there was an `n`-th.
    pub(crate) fn fail_nth<T>(n: u32, subject: impl FnOnce() -> T) -> (T, bool) {
        LEFT.set(Some(n));
        let result = subject();
        (result, LEFT.take().is_none())
    }

    pub(super) fn error() -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::StorageFull, "injected")
    }

    pub(super) fn strike() -> std::io::Result<()> {
        match LEFT.get() {
            Some(0) => {
                LEFT.set(None);
                Err(error())
            }
            Some(n) => {
                LEFT.set(Some(n - 1));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Before a write that will fail, writes half of it, as a full disk does.
    pub(super) fn short_write(file: &mut File, bytes: &[u8]) -> bool {
        let strikes = LEFT.get() == Some(0);
        if strikes {
            file.write_all(&bytes[..bytes.len() / 2]).expect("the test's folder takes bytes");
        }
        strikes
    }
}
