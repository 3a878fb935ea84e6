//! Looking into folders of our own, and taking old ones away.

use std::path::Path;

use crate::error::{Error, Result};
use crate::ops::{self, folder_of, temporary_beside};

/// Most entries of a folder that are listed.
const MAX_ENTRIES: usize = 100_000;

/// Names in a folder, in order; empty if there is no folder. Names that are not UTF-8 are skipped: we never write any.
///
/// # Errors
/// The folder cannot be read, or holds more than any of ours.
pub fn list(folder: &Path) -> Result<Vec<String>> {
    let io = |source| Error::Io { operation: "list", path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io(e)),
    };
    let mut names = Vec::new();
    for entry in entries.take(MAX_ENTRIES) {
        names.extend(entry.map_err(io)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether a name is one that [`NewDir`](crate::NewDir), [`write_atomic`](crate::write_atomic) or [`remove`] leave
/// behind when they are stopped.
pub fn is_temporary(name: &str) -> bool {
    let Some((_, numbers)) = name.rsplit_once(".tmp-") else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.split_once('-').is_some_and(|(pid, n)| digits(pid) && digits(n))
}

/// Makes a folder where there is none; its own folder must exist.
///
/// # Errors
/// The system refuses.
pub fn make(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    ops::create_dir(path)?;
    ops::sync_dir(folder_of(path))
}

/// Gives a file or folder another name in its folder, and brings that to the disk.
///
/// # Errors
/// The system refuses.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    ops::rename(from, to)?;
    ops::sync_dir(folder_of(to))
}

/// Removes a file, or a folder whole. It first loses its name, so that half of it is never taken for it.
///
/// # Errors
/// The system refuses; what is left has its name or a temporary one.
pub fn remove(path: &Path) -> Result<()> {
    let aside = temporary_beside(path)?;
    ops::rename(path, &aside)?;
    ops::sync_dir(folder_of(path))?;
    ops::remove(&aside)
}

/// Removes what was left of writes that were stopped. Only for the folder's one writer.
///
/// # Errors
/// The system refuses.
pub fn sweep(folder: &Path) -> Result<usize> {
    let left: Vec<_> = list(folder)?.into_iter().filter(|name| is_temporary(name)).collect();
    left.iter().try_for_each(|name| ops::remove(&folder.join(name)))?;
    Ok(left.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_stopped_writes_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let keep = ["a.tmp", "a.tmp-1", "a.tmp-1-", "a.tmp-x-1", "step-1", "b.tmp-1-2.json"];
        let gone = ["a.tmp-1-2", "step-000001.tmp-77-0"];
        for name in keep.iter().chain(&gone) {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert_eq!(sweep(dir.path()).unwrap(), gone.len());
        let mut keep = keep.to_vec();
        keep.sort_unstable();
        assert_eq!(list(dir.path()).unwrap(), keep);
    }

    #[test]
    fn a_removed_folder_is_gone_and_a_missing_one_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("step");
        make(&path).unwrap();
        make(&path).unwrap();
        crate::write_atomic(&path.join("x"), b"x").unwrap();
        remove(&path).unwrap();
        assert!(list(dir.path()).unwrap().is_empty());
        assert!(matches!(remove(&path), Err(Error::Io { operation: "rename", .. })));
    }
}
