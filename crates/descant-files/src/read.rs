//! Reading whole files, never more than their kind may have.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
/// The file cannot be opened or read, is not a regular file, or is longer than `limit`.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let io = |operation, source| Error::Io { operation, path: path.to_owned(), source };
    let file = open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| io("read", e))?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLong { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// Opens a regular file, and nothing else: to open a pipe that somebody left in a folder is to wait for ever.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    let io = |source| Error::Io { operation: "open", path: path.to_owned(), source };
    if !path.metadata().map_err(io)?.is_file() {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    File::open(path).map_err(io)
}
