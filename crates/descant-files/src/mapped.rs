//! Read-only memory maps.

use std::path::Path;

use crate::Error;

/// A file's bytes, mapped.
#[derive(Debug)]
pub struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps `path` read-only.
    ///
    /// # Errors
    /// The file cannot be opened or mapped.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |operation, source| Error::Io { operation, path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(|e| io("open", e))?;
        #[expect(unsafe_code, reason = "mapping a file cannot be proven safe: another process may change it")]
        // SAFETY: the map is read-only and handed out as bytes only; readers check what they parse. A file that
        // shrinks under the map ends the process with SIGBUS, which loses nothing but the run's last step.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| io("map", e))?;
        Ok(Self(map))
    }
}

impl std::ops::Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
