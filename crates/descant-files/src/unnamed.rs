//! Files without a name, for what is needed while a process lives and is larger than its memory should be.

use std::fs::File;
use std::path::Path;

use crate::error::{Error, Result};
use crate::ops;

/// So many names are tried; one is taken where a process was killed between making a file and taking its name away.
const TRIES: usize = 16;

/// A file to write and read that nobody else sees, in a folder that exists. It is gone with its last handle, however the
/// process ends.
///
/// # Errors
/// The system refuses.
pub fn unnamed(folder: &Path) -> Result<File> {
    let mut last = None;
    for _ in 0..TRIES {
        let path = ops::temporary_beside(&folder.join("descant"))?;
        let io = |source| Error::Io { operation: "create", path: path.clone(), source };
        match open(&path) {
            Ok(file) => return Ok(file),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => last = Some(io(error)),
            Err(error) => return Err(io(error)),
        }
    }
    Err(last.expect("a try that did not return left its error"))
}

#[cfg(unix)]
fn open(path: &Path) -> std::io::Result<File> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

#[cfg(windows)]
fn open(path: &Path) -> std::io::Result<File> {
    use std::os::windows::fs::OpenOptionsExt as _;
    const FILE_FLAG_DELETE_ON_CLOSE: u32 = 0x0400_0000;
    let flags = FILE_FLAG_DELETE_ON_CLOSE;
    File::options().read(true).write(true).create_new(true).custom_flags(flags).open(path)
}

#[cfg(not(any(unix, windows)))]
fn open(_: &Path) -> std::io::Result<File> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Seek as _, Write as _};

    #[test]
    fn it_can_be_written_and_read_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = unnamed(dir.path()).unwrap();
        assert!(crate::list(dir.path()).unwrap().is_empty());
        file.write_all(b"examples").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "examples");
        assert!(unnamed(&dir.path().join("missing")).is_err());
    }
}
