//! A data set in several files: a folder of shards, read one after the other as if they were one.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Endings of files with rows, the preferred first.
const ENDINGS: [&str; 6] = [".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json"];
/// Most files of one folder.
const FILES: usize = 10_000;

/// The files of a data set, in the order of their names: the path itself, or of a folder those with rows, of one kind;
/// where some are named after the training split, those alone.
///
/// # Errors
/// A folder that cannot be read, has no such file, or too many.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let bad = |reason: &str| Error::DataFile { path: path.to_path_buf(), reason: reason.to_owned() };
    let mut names = Vec::new();
    for entry in path.read_dir().map_err(io)?.take(FILES + 1) {
        // A name that is no text has none of the endings.
        names.extend(entry.map_err(io)?.file_name().into_string().ok());
    }
    if names.len() > FILES {
        return Err(bad("a folder of more than 10,000 files"));
    }
    names.sort_unstable();
    for ending in ENDINGS {
        let is_rows = |name: &&String| name.ends_with(ending) && path.join(name).is_file();
        let all: Vec<&String> = names.iter().filter(is_rows).collect();
        let train: Vec<&String> = all.iter().copied().filter(|name| name.starts_with("train")).collect();
        let chosen = if train.is_empty() { all } else { train };
        if !chosen.is_empty() {
            return Ok(chosen.into_iter().map(|name| path.join(name)).collect());
        }
    }
    Err(bad("a folder without a parquet or JSONL file"))
}
