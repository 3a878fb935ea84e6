//! Files mapped into memory, read-only.
//!
//! Weight shards are gigabytes and are read once, tensor by tensor: mapped, they cost no memory of ours.
//! A file that someone shortens while it is mapped ends the process when the lost part is touched, so the length
//! is compared after mapping, and can be compared again before use. Nothing here understands what the bytes mean.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, Result};
use crate::read::open_regular;

/// A whole regular file, mapped read-only.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    file: File,
    map: Mmap,
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// The file cannot be opened, is not a regular file, cannot be mapped, or changed its length meanwhile.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |operation, source| Error::Io { operation, path: path.to_owned(), source };
        let file = open_regular(path)?;
        #[expect(unsafe_code, reason = "mapping is unsafe because others may change the file; see SAFETY")]
        // SAFETY: the mapping is private to us, read-only, and gives out shared byte slices only; any byte is a
        // valid `u8`. A change of content by another process can show in them, which parsers here survive because
        // they check what they read before they use it; a loss of length is looked for in `check_length`.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| io("map", e))?;
        let mapped = Self { path: path.to_owned(), file, map };
        mapped.check_length()?;
        Ok(mapped)
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's content.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Compares the file's length with what was mapped.
    ///
    /// # Errors
    /// The length differs, or the system does not report it.
    pub fn check_length(&self) -> Result<()> {
        let metadata = self.file.metadata().map_err(|source| Error::Io {
            operation: "look at",
            path: self.path.clone(),
            source,
        })?;
        let (expected, actual) = (self.map.len() as u64, metadata.len());
        if expected == actual {
            return Ok(());
        }
        Err(Error::Length { path: self.path.clone(), expected, actual })
    }
}
