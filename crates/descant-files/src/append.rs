//! Logs that grow by whole lines.
//!
//! A run's metrics are one line a step. A line is written with one call, so whoever reads along sees whole lines;
//! after a crash the log is cut to the length that the last checkpoint recorded, so a line is never there twice.
//! This does not parse lines, rotate files or lock them.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::ops;

/// A file that only grows, by lines.
#[derive(Debug)]
pub struct Appender {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Appender {
    /// Starts a new log.
    ///
    /// # Errors
    /// A file is there already, or none can be made.
    pub fn create(path: &Path) -> Result<Self> {
        let file = ops::create(path)?;
        Ok(Self { path: path.to_owned(), file, length: 0 })
    }

    /// Continues a log at `length` bytes; what follows them is truncated.
    ///
    /// # Errors
    /// The file is not there or is shorter than `length`, or it cannot be cut.
    pub fn resume(path: &Path, length: u64) -> Result<Self> {
        let io = |operation, source| Error::Io { operation, path: path.to_owned(), source };
        let mut file = File::options().write(true).open(path).map_err(|e| io("open", e))?;
        let actual = file.metadata().map_err(|e| io("look at", e))?.len();
        if actual < length {
            return Err(Error::Length { path: path.to_owned(), expected: length, actual });
        }
        ops::set_len(path, &file, length)?;
        file.seek(SeekFrom::End(0)).map_err(|e| io("seek", e))?;
        Ok(Self { path: path.to_owned(), file, length })
    }

    /// Bytes written so far, all of them whole lines: what a checkpoint records.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Adds one line; the line break is added here.
    ///
    /// # Errors
    /// The text contains a line break, or cannot be written; then the log is as it was before the call.
    pub fn append(&mut self, line: &str) -> Result<()> {
        if line.contains(['\n', '\r']) {
            return Err(Error::LineBreak { path: self.path.clone() });
        }
        let bytes = format!("{line}\n").into_bytes();
        if let Err(error) = ops::write(&self.path, &mut self.file, &bytes) {
            // Part of the line may be there. If even this fails, `resume` with the recorded length mends it.
            let _ = self.file.set_len(self.length);
            let _ = self.file.seek(SeekFrom::Start(self.length));
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Brings all lines to the disk.
    ///
    /// # Errors
    /// The system refuses.
    pub fn sync(&self) -> Result<()> {
        ops::sync(&self.path, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Effect, Fault, with};

    #[test]
    fn a_line_that_fails_half_way_leaves_no_half() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("metrics.jsonl");
        let mut log = Appender::create(&path).unwrap();
        log.append(r#"{"step":1}"#).unwrap();
        let (result, struck) = with(Fault { after: 0, effect: Effect::Full, lasting: false }, || {
            log.append(r#"{"step":2,"loss":0.25}"#)
        });
        assert!(struck);
        assert!(matches!(result, Err(Error::Io { operation: "write", .. })));
        log.append(r#"{"step":3}"#).unwrap();
        log.sync().unwrap();
        let text = crate::read_bounded(&path, 1000).unwrap();
        assert_eq!(text, b"{\"step\":1}\n{\"step\":3}\n");
        assert_eq!(log.length(), text.len() as u64);
    }
}
