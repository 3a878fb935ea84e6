//! Outside names and bytes: safe relative paths, bounded reads, mapped files, durable writes.
//!
//! Skeleton: the bounded read that `config.json` needs; the rest follows.

mod mapped;

use std::io::Read;
use std::path::{Path, PathBuf};

pub use mapped::MappedFile;

/// An error of the file layer; every variant names the path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation.
    #[error("{operation} {path}: {source}", path = path.display())]
    Io {
        /// What was tried: open, read, write, sync, rename, remove.
        operation: &'static str,
        /// The path it was tried on.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is longer than its kind may be.
    #[error("{path}: longer than the limit of {limit} bytes", path = path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
}

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
/// The file cannot be opened or read, or is longer than `limit`.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let io = |operation, source| Error::Io { operation, path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(|e| io("open", e))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| io("read", e))?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLong { path: path.to_owned(), limit });
    }
    Ok(bytes)
}
