//! Reading a large file in pieces, wherever they lie, without keeping any of it.
//!
//! A mapped file counts as memory for as long as it is mapped; pieces that are read count for as long as their reader
//! keeps them. Several threads may read at once.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::read::open_regular;

/// A regular file, open for pieces of it.
#[derive(Debug)]
pub struct Ranges {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Ranges {
    /// Opens the file.
    ///
    /// # Errors
    /// It cannot be opened, or is not a regular file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = open_regular(path)?;
        let metadata = file.metadata().map_err(|source| Error::Io {
            operation: "look at",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self { path: path.to_owned(), file, length: metadata.len() })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file when it was opened.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Fills `into` with the bytes from `start` on.
    ///
    /// # Errors
    /// The file ends before, or the system refuses.
    pub fn read(&self, start: u64, into: &mut [u8]) -> Result<()> {
        read_exact_at(&self.file, start, into).map_err(|source| Error::Io {
            operation: "read",
            path: self.path.clone(),
            source,
        })
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, start: u64, into: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, start)
}

#[cfg(not(unix))]
fn read_exact_at(file: &File, start: u64, into: &mut [u8]) -> std::io::Result<()> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    // A handle of its own, because the position belongs to it.
    let mut file = file.try_clone()?;
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_where_they_lie_and_none_is_beyond_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        crate::write_atomic(&path, b"0123456789").unwrap();
        let file = Ranges::open(&path).unwrap();
        assert_eq!(file.length(), 10);
        let mut piece = [0; 4];
        file.read(3, &mut piece).unwrap();
        assert_eq!(&piece, b"3456");
        let error = file.read(7, &mut piece).unwrap_err();
        assert!(matches!(error, Error::Io { operation: "read", .. }));
        assert!(matches!(Ranges::open(dir.path()), Err(Error::NotAFile { .. })));
    }
}
