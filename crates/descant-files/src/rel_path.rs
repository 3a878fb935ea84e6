//! Names from outside, as paths that cannot leave their folder.
//!
//! An index file, a repository listing or a manifest names files. Such a name is refused unless it is a plain
//! relative path on every system: what is harmless here may be a drive or a device there, and folders are copied.
//! Joining also follows symbolic links, because a folder may hold one that leads out.
//!
//! This does not hold against someone who swaps folders for links while we run; nothing here is a sandbox.

use std::path::{Path, PathBuf};

use crate::error::{Error, NameDefect, Result};

/// Longest part of a name, in bytes.
const MAX_PART_BYTES: usize = 255;
/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 1024;

/// A relative path of plain parts, separated by `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(String);

impl RelPath {
    /// Checks a name from outside.
    ///
    /// # Errors
    /// [`Error::Name`], with what is wrong.
    pub fn new(name: &str) -> Result<Self> {
        match defect(name) {
            None => Ok(Self(name.to_owned())),
            Some(defect) => Err(Error::Name { name: name.chars().take(MAX_PART_BYTES).collect(), defect }),
        }
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of this name under `base`, once no symbolic link on the way leads out of `base`.
    ///
    /// What does not exist yet is fine. A snapshot folder of a model hub's cache (`snapshots/REVISION` beside
    /// `blobs`) keeps its files as links into `blobs`, so there the folder of both counts as inside.
    ///
    /// # Errors
    /// A link leads out or nowhere, or the system refuses to look.
    pub fn under(&self, base: &Path) -> Result<PathBuf> {
        let path = base.join(&self.0);
        let Some(inside) = realpath_if_any(base)? else {
            return Ok(path);
        };
        let fence = cache_of_snapshot(&inside).unwrap_or(&inside);
        let mut reached = inside.clone();
        for part in self.0.split('/') {
            reached.push(part);
            let Some(metadata) = link_metadata_if_any(&reached)? else {
                break;
            };
            if metadata.is_symlink() {
                // A dangling link is an error here: writing through it would make a file wherever it points.
                let target = realpath(&reached)?;
                if !target.starts_with(fence) {
                    return Err(Error::Escapes { path, target });
                }
                reached = target;
            }
        }
        Ok(path)
    }
}

impl std::fmt::Display for RelPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn defect(name: &str) -> Option<NameDefect> {
    if name.is_empty() {
        return Some(NameDefect::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Some(NameDefect::TooLong);
    }
    if name.chars().any(char::is_control) {
        return Some(NameDefect::Control);
    }
    if name.contains('\\') {
        return Some(NameDefect::Backslash);
    }
    if name.contains(':') {
        return Some(NameDefect::Colon);
    }
    if name.starts_with('/') {
        return Some(NameDefect::Absolute);
    }
    name.split('/').find_map(part_defect)
}

fn part_defect(part: &str) -> Option<NameDefect> {
    match part {
        "" => Some(NameDefect::EmptyPart),
        "." | ".." => Some(NameDefect::Dots),
        _ if part.len() > MAX_PART_BYTES => Some(NameDefect::TooLong),
        _ if part.ends_with(['.', ' ']) => Some(NameDefect::TrailingDotOrSpace),
        _ if is_device(part) => Some(NameDefect::Device),
        _ => None,
    }
}

/// Whether Windows takes this name for a device, whatever its ending and case.
fn is_device(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part).trim_end().to_ascii_uppercase();
    let numbered = |prefix| stem.strip_prefix(prefix).is_some_and(|n| matches!(n.as_bytes(), [b'1'..=b'9']));
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT")
}

/// The folder of a hub cache that holds both `snapshots/REVISION`, which is `dir`, and `blobs`.
fn cache_of_snapshot(dir: &Path) -> Option<&Path> {
    let snapshots = dir.parent()?;
    let cache = snapshots.parent()?;
    (snapshots.file_name()? == "snapshots" && cache.join("blobs").is_dir()).then_some(cache)
}

fn realpath(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|source| Error::Io { operation: "resolve", path: path.to_owned(), source })
}

fn realpath_if_any(path: &Path) -> Result<Option<PathBuf>> {
    match link_metadata_if_any(path)? {
        Some(_) => realpath(path).map(Some),
        None => Ok(None),
    }
}

fn link_metadata_if_any(path: &Path) -> Result<Option<std::fs::Metadata>> {
    match path.symlink_metadata() {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { operation: "look at", path: path.to_owned(), source }),
    }
}
