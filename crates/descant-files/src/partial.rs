//! A file that arrives piece by piece, perhaps over several runs, and gets its name when it is whole.
//!
//! ```text
//! NAME.incomplete   grows by append; a later run continues where it ends
//! NAME              appears by renaming, after the content is on the disk
//! ```
//!
//! Whether the content is right is for the caller to say, before [`commit`](Partial::commit). There is no locking.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::ops;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 18;

/// A regular file under a provisional name, open at its end.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Partial {
    /// Resumes the file at `path`, or starts it.
    ///
    /// # Errors
    /// Something else than a regular file is there, or it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |operation, source| Error::Io { operation, path: path.to_owned(), source };
        match path.symlink_metadata() {
            Ok(metadata) if !metadata.is_file() => return Err(Error::NotAFile { path: path.to_owned() }),
            _ => {}
        }
        let file = ops::open_or_create(path)?;
        let mut partial = Self { path: path.to_owned(), file, length: 0 };
        partial.length = partial.file.seek(SeekFrom::End(0)).map_err(|e| io("seek", e))?;
        Ok(partial)
    }

    /// Bytes that are there.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Shows everything that is there, in order, and is at the end again.
    ///
    /// # Errors
    /// The file cannot be read, or is shorter than it was.
    pub fn for_each_chunk(&mut self, mut see: impl FnMut(&[u8])) -> Result<()> {
        let io = |operation, source| Error::Io { operation, path: self.path.clone(), source };
        self.file.seek(SeekFrom::Start(0)).map_err(|e| io("seek", e))?;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut seen = 0;
        while seen < self.length {
            let wanted = chunk.len().min((self.length - seen) as usize);
            match self.file.read(&mut chunk[..wanted]) {
                Ok(0) => {
                    let (path, expected) = (self.path.clone(), self.length);
                    return Err(Error::Length { path, expected, actual: seen });
                }
                Ok(n) => {
                    see(&chunk[..n]);
                    seen += n as u64;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(io("read", e)),
            }
        }
        Ok(())
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// They cannot be written; then the file is as long as it was before the call.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(error) = ops::write(&self.path, &mut self.file, bytes) {
            let _ = self.file.set_len(self.length);
            let _ = self.file.seek(SeekFrom::Start(self.length));
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Forgets everything that is there.
    ///
    /// # Errors
    /// The file cannot be cut.
    pub fn restart(&mut self) -> Result<()> {
        ops::set_len(&self.path, &self.file, 0)?;
        self.length = 0;
        let io = |source| Error::Io { operation: "seek", path: self.path.clone(), source };
        self.file.seek(SeekFrom::Start(0)).map_err(io)?;
        Ok(())
    }

    /// Brings the content to the disk and gives the file its name, in the same folder.
    ///
    /// # Errors
    /// An operation was refused; then the provisional file is still there.
    pub fn commit(self, path: &Path) -> Result<()> {
        ops::sync(&self.path, &self.file)?;
        ops::rename(&self.path, path)?;
        ops::sync_dir(ops::folder_of(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Effect, Fault, with};

    #[test]
    fn a_second_run_goes_on_where_the_first_ended() {
        let root = tempfile::tempdir().unwrap();
        let (part, whole) = (root.path().join("a.incomplete"), root.path().join("a"));
        let mut first = Partial::open(&part).unwrap();
        first.append(b"one ").unwrap();
        drop(first);
        let mut second = Partial::open(&part).unwrap();
        assert_eq!(second.length(), 4);
        let mut seen = Vec::new();
        second.for_each_chunk(|chunk| seen.extend_from_slice(chunk)).unwrap();
        assert_eq!(seen, b"one ");
        second.append(b"two").unwrap();
        second.commit(&whole).unwrap();
        assert_eq!(crate::read_bounded(&whole, 100).unwrap(), b"one two");
        assert!(!part.exists());
        let mut third = Partial::open(&part).unwrap();
        third.append(b"wrong").unwrap();
        third.restart().unwrap();
        third.append(b"ok").unwrap();
        third.commit(&whole).unwrap();
        assert_eq!(crate::read_bounded(&whole, 100).unwrap(), b"ok");
    }

    #[test]
    fn whatever_fails_leaves_the_old_file_or_the_whole_new_one() {
        let mut struck_once = 0;
        for n in 0..16 {
            let root = tempfile::tempdir().unwrap();
            let (part, whole) = (root.path().join("a.incomplete"), root.path().join("a"));
            crate::write_atomic(&whole, b"old").unwrap();
            let (result, struck) = with(Fault { after: n, effect: Effect::Full, lasting: false }, || {
                let mut partial = Partial::open(&part)?;
                partial.append(b"the new")?;
                partial.commit(&whole)
            });
            let is = crate::read_bounded(&whole, 100).unwrap();
            assert!(is == b"old" || is == b"the new", "operation {n}: {is:?}");
            if !struck {
                result.unwrap();
                assert_eq!(is, b"the new");
                break;
            }
            assert!(result.is_err(), "operation {n} failed unnoticed");
            struck_once += 1;
        }
        assert!(struck_once >= 5, "open, write, sync, rename, sync each failed once");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_under_the_provisional_name_is_not_written_through() {
        let root = tempfile::tempdir().unwrap();
        let outside = root.path().join("outside");
        crate::write_atomic(&outside, b"precious").unwrap();
        let part = root.path().join("a.incomplete");
        std::os::unix::fs::symlink(&outside, &part).unwrap();
        assert!(matches!(Partial::open(&part), Err(Error::NotAFile { .. })));
        assert_eq!(crate::read_bounded(&outside, 100).unwrap(), b"precious");
    }
}
