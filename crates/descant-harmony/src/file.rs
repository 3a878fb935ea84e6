//! Bounded reads of whole files.
//!
//! A file's length is checked before and while it is read, since a length that is asked for may be a lie (a pipe, a
//! file that grows).

use crate::error::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Opens a regular file, and nothing else: to open a pipe that somebody left in a folder is to wait for ever.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    if !path.metadata().map_err(io)?.is_file() {
        return Err(io(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file")));
    }
    File::open(path).map_err(io)
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let file = open_regular(path)?;
    let stated = file.metadata().map_err(io)?.len();
    if stated > limit {
        return Err(Error::FileTooLarge { path: path.to_path_buf(), limit });
    }
    let mut bytes = Vec::with_capacity(stated as usize);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(Error::FileTooLarge { path: path.to_path_buf(), limit });
    }
    Ok(bytes)
}

/// Reads a UTF-8 file of at most `limit` bytes.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String> {
    String::from_utf8(read_bounded(path, limit)?).map_err(|error| Error::Io {
        path: path.to_path_buf(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, error.utf8_error()),
    })
}
