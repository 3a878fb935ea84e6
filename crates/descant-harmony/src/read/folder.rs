//! A data set in several files: a folder of shards, or a repository of a hub as it was cloned, read one file after the
//! other as if they were one.
//!
//! `README.md` may say which files are the training split; else their names and folders do.

use crate::error::{Error, Result};
use crate::file::read_text;
use crate::read::{kind, readme};
use std::path::{Path, PathBuf};

/// Endings of files with rows, by kind; a folder is of one kind.
const KINDS: [&[&str]; 4] = [
    &[".parquet"],
    &[".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".json.gz", ".json.zst"],
    &[".json"],
    &[".csv"],
];
/// Files that describe others.
const METADATA: [&str; 6] = [
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "package.json",
    "croissant.json",
];
/// Names of splits that are not for training.
const OTHER_SPLITS: [&str; 5] = ["test", "validation", "valid", "dev", "eval"];
/// Most files of one folder, in all that lies below it.
const FILES: usize = 10_000;
/// How deep files may lie.
const DEPTH: usize = 4;
/// Longest `README.md` that is looked at.
const README_BYTES: u64 = 4 << 20;

/// The files of a data set, in the order of their names: the path itself, or of a folder those with rows, of one kind;
/// where some are named after the training split, those alone.
///
/// # Errors
/// A folder that cannot be read, has no such file, or leaves it open which are meant.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let bad = |reason: String| Error::DataFile { path: path.to_path_buf(), reason };
    let mut names = Vec::new();
    list(path, "", DEPTH, &mut names)?;
    names.sort_unstable();
    let is_saved = |name: &str| path.join(name).is_file() && names.iter().any(|name| ends(name, ".arrow"));
    if is_saved("state.json") || is_saved("dataset_dict.json") || is_saved("dataset_info.json") {
        return Err(kind::saved_to_disk(path));
    }
    let has_rows = |name: &&String, ending: &str| {
        let last = name.rsplit('/').next().unwrap_or(name);
        name.ends_with(ending) && !METADATA.contains(&last)
    };
    if let Some(patterns) = stated(path)? {
        let meant = |name: &&String| {
            patterns.iter().any(|pattern| readme::matches(pattern, name))
                && KINDS.iter().copied().flatten().any(|ending| has_rows(name, ending))
        };
        let meant: Vec<PathBuf> = names.iter().filter(meant).map(|name| path.join(name)).collect();
        if meant.is_empty() {
            let patterns = patterns.join(", ");
            return Err(bad(format!("its README.md names {patterns}, and no such file is there")));
        }
        return Ok(meant);
    }
    let of_kind = |kind: &[&str]| {
        let all: Vec<&String> =
            names.iter().filter(|name| kind.iter().any(|ending| has_rows(name, ending))).collect();
        let of_split = |split: Option<&str>| {
            all.iter().copied().filter(|name| split_of(name) == split).collect::<Vec<&String>>()
        };
        [of_split(Some("train")), of_split(None), all.clone()].into_iter().find(|chosen| !chosen.is_empty())
    };
    let mut kinds = KINDS.into_iter().map(of_kind);
    let (parquet, lines) = (kinds.next().flatten(), kinds.next().flatten());
    if let (Some(parquet), Some(lines)) = (&parquet, &lines) {
        let reason = format!(
            "has rows in parquet ({}) and in JSON lines ({}); name the file or folder that is meant",
            parquet[0], lines[0]
        );
        return Err(bad(reason));
    }
    if let Some(chosen) = parquet.or(lines).or_else(|| kinds.find_map(|chosen| chosen)) {
        return one_set(path, &chosen);
    }
    Err(bad("a folder without a parquet or JSONL file".to_owned()))
}

/// Endings are what they are on the hub: in small letters.
fn ends(name: &str, ending: &str) -> bool {
    name.ends_with(ending)
}

/// The chosen files, which must be shards of one set: in one folder, or in folders named after a split.
fn one_set(path: &Path, chosen: &[&String]) -> Result<Vec<PathBuf>> {
    let folder = |name: &String| name.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let mut folders: Vec<String> = chosen.iter().map(|name| folder(name)).collect();
    folders.dedup();
    if folders.len() > 1 {
        let some: Vec<&str> =
            folders.iter().take(6).map(|name| if name.is_empty() { "." } else { name }).collect();
        let reason = format!("rows in several folders ({}); name the one that is meant", some.join(", "));
        return Err(Error::DataFile { path: path.to_path_buf(), reason });
    }
    // The same shard, packed and not, would be read twice.
    let stem =
        |name: &String| KINDS[1].iter().find_map(|ending| name.strip_suffix(ending)).map(str::to_owned);
    let neighbours = || chosen.iter().zip(chosen.iter().skip(1));
    if let Some((one, other)) = neighbours().find(|(a, b)| stem(a).is_some() && stem(a) == stem(b)) {
        let reason = format!("has {one} and {other}, which look like the same rows; take one away");
        return Err(Error::DataFile { path: path.to_path_buf(), reason });
    }
    Ok(chosen.iter().map(|name| path.join(name)).collect())
}

/// The split that a file's name or a folder above it states.
fn split_of(name: &str) -> Option<&'static str> {
    let parts: Vec<&str> = name.split('/').collect();
    let states = |split: &str| {
        parts.iter().any(|part| {
            part.strip_prefix(split).is_some_and(|rest| !rest.starts_with(|char: char| char.is_alphabetic()))
        })
    };
    // As before, whatever follows `train`.
    if parts.iter().any(|part| part.starts_with("train")) {
        return Some("train");
    }
    OTHER_SPLITS.into_iter().find(|split| states(split))
}

/// The patterns that the folder's `README.md` states.
fn stated(path: &Path) -> Result<Option<Vec<String>>> {
    let readme = path.join("README.md");
    if !readme.is_file() {
        return Ok(None);
    }
    // One that is no text says nothing.
    let Ok(text) = read_text(&readme, README_BYTES) else { return Ok(None) };
    readme::train_patterns(&text.replace("\r\n", "\n")).map_err(|names| {
        let names = names.join(", ");
        let reason =
            format!("several configurations ({names}) and none is the default; name the folder or file");
        Error::DataFile { path: path.to_path_buf(), reason }
    })
}

/// Names of all files below a folder, with `/` between folders; hidden ones are passed over.
fn list(root: &Path, below: &str, depth: usize, names: &mut Vec<String>) -> Result<()> {
    let folder = root.join(below);
    let io = |source| Error::Io { path: folder.clone(), source };
    for entry in folder.read_dir().map_err(io)? {
        // A name that is no text has none of the endings.
        let Ok(name) = entry.map_err(io)?.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let whole = root.join(&path);
        if whole.is_file() {
            names.push(path);
        } else if whole.is_dir() && depth > 0 {
            list(root, &path, depth - 1, names)?;
        }
        if names.len() > FILES {
            let reason = "a folder of more than 10,000 files".to_owned();
            return Err(Error::DataFile { path: root.to_path_buf(), reason });
        }
    }
    Ok(())
}
