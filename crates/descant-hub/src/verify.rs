//! Is what lies there what was published? Hashes of a cache, lengths and pointers of a plain directory.

use std::path::Path;

use crate::cache::{Cache, Snapshot, model_files};
use crate::checksum::Checksum;
use crate::error::{Error, Result};
use crate::select;

/// What git LFS leaves in place of a file that was not fetched.
pub(crate) const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1";
/// Longest header of a safetensors file, as its library has it.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A file that was looked at.
#[derive(Debug)]
pub struct Checked {
    /// Its name.
    pub name: String,
    /// Its length.
    pub size: u64,
    /// What was found.
    pub outcome: Outcome,
}

/// What a look at a file gave.
#[derive(Debug)]
pub enum Outcome {
    /// Its content has the published hash.
    Verified(Checksum),
    /// Its hash is unknown; its length agrees with its own header, where it has one.
    Consistent,
    /// It is not what was published.
    Damaged(Error),
}

impl Cache {
    /// Hashes every file of a snapshot; `see` is shown each when it is done.
    ///
    /// # Errors
    /// A file cannot be read. What is damaged is not an error, but an outcome.
    pub fn verify(&self, snapshot: &Snapshot, mut see: impl FnMut(&Checked)) -> Result<Vec<Checked>> {
        let check = |name: &descant_files::RelPath| {
            let path = snapshot.dir.join(name.as_str());
            let outcome = match published(&path) {
                None => consistent(&path)?,
                Some(checksum) => match checksum.check_file(&path) {
                    Ok(()) => Outcome::Verified(checksum),
                    Err(error @ Error::Checksum { .. }) => Outcome::Damaged(named(error, name.as_str())),
                    Err(error) => return Err(error),
                },
            };
            let checked = Checked { name: name.to_string(), size: length(&path)?, outcome };
            see(&checked);
            Ok(checked)
        };
        snapshot.files.iter().map(check).collect()
    }
}

/// Looks at a model directory that is not a cache: whether it is complete, and whether its files are whole.
///
/// # Errors
/// A file that is needed is missing or cannot be read.
pub fn check_dir(dir: &Path) -> Result<Vec<Checked>> {
    let what = dir.display().to_string();
    let incompatible = |reason| Error::Incompatible { what: what.clone(), reason };
    let files = model_files(dir).map_err(incompatible)?;
    let config = descant_files::read_bounded(&dir.join(select::CONFIG), select::MAX_JSON_BYTES)?;
    select::check_config(&config).map_err(incompatible)?;
    let check = |name: descant_files::RelPath| {
        let path = dir.join(name.as_str());
        let (size, outcome) = (length(&path)?, consistent(&path)?);
        Ok(Checked { name: name.as_str().to_owned(), size, outcome })
    };
    files.into_iter().map(check).collect()
}

/// The hash that a link into `blobs` names.
fn published(path: &Path) -> Option<Checksum> {
    let target = std::fs::read_link(path).ok()?;
    if target.parent()?.file_name()? != "blobs" {
        return None;
    }
    Checksum::parse(target.file_name()?.to_str()?)
}

/// What can be verified of a file whose hash is unknown.
fn consistent(path: &Path) -> Result<Outcome> {
    let file = path.display().to_string();
    let start = start_of(path)?;
    if start.starts_with(POINTER) {
        return Ok(Outcome::Damaged(Error::Pointer { file }));
    }
    if path.extension().is_none_or(|extension| extension != "safetensors") {
        return Ok(Outcome::Consistent);
    }
    let actual = length(path)?;
    let expected = safetensors_length(path, actual)?;
    Ok(match expected {
        Some(expected) if expected == actual => Outcome::Consistent,
        Some(expected) => Outcome::Damaged(Error::Length { file, expected, actual }),
        None => Outcome::Damaged(Error::Incompatible { what: file, reason: "no safetensors header".into() }),
    })
}

/// The length that the header of a safetensors file claims.
fn safetensors_length(path: &Path, actual: u64) -> Result<Option<u64>> {
    use std::io::Read as _;
    let io = |source| descant_files::Error::Io { operation: "read", path: path.to_owned(), source };
    let mut file = std::fs::File::open(path).map_err(io)?;
    let mut prefix = [0; 8];
    if actual < 8 {
        return Ok(None);
    }
    file.read_exact(&mut prefix).map_err(io)?;
    let header = u64::from_le_bytes(prefix);
    if header > MAX_HEADER_BYTES || header > actual - 8 {
        return Ok(None);
    }
    let mut bytes = vec![0; header as usize];
    file.read_exact(&mut bytes).map_err(io)?;
    let Ok(header_json) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes) else {
        return Ok(None);
    };
    let ends = header_json.values().filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64());
    Ok((8 + header).checked_add(ends.max().unwrap_or(0)))
}

fn start_of(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let io = |source| descant_files::Error::Io { operation: "read", path: path.to_owned(), source };
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(POINTER.len() as u64).read_to_end(&mut start).map_err(io)?;
    Ok(start)
}

fn length(path: &Path) -> Result<u64> {
    let io = |source| descant_files::Error::Io { operation: "look at", path: path.to_owned(), source };
    Ok(std::fs::metadata(path).map_err(io)?.len())
}

/// The name that people know in place of the blob's path.
fn named(error: Error, name: &str) -> Error {
    match error {
        Error::Checksum { kind, expected, actual, .. } => {
            Error::Checksum { file: name.to_owned(), kind, expected, actual }
        }
        other => other,
    }
}
