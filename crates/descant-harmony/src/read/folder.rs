//! A data set in several files: a folder of shards, or a repository of a hub as it was cloned, read one file after the
//! other as if they were one.
//!
//! `README.md` may say which files are the training split; else their names and folders do.

use crate::error::{Error, Result};
use crate::file::read_text;
use crate::read::passed_over::{PassedOver, Why};
use crate::read::{kind, readme};
use std::path::{Path, PathBuf};

/// Endings of files with rows, by kind; a folder is of one kind.
const KINDS: [&[&str]; 3] = [
    &[".parquet"],
    &[".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst", ".json.gz", ".json.zst"],
    &[".json"],
];
/// Endings of files that hold rows in a form that is not read; each says by itself how to make rows of it.
const REFUSED: [&str; 6] = [".csv", ".tsv", ".arrow", ".feather", ".xlsx", ".zip"];
/// Files that describe others.
const METADATA: [&str; 6] = [
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "package.json",
    "croissant.json",
];
/// Name of the training split.
const TRAIN: &str = "train";
/// Names of splits that are not for training.
const OTHER_SPLITS: [&str; 5] = ["test", "validation", "valid", "dev", "eval"];
/// Most files of one folder, in all that lies below it.
const FILES: usize = 10_000;
/// How deep files may lie.
const DEPTH: usize = 4;
/// Longest `README.md` that is looked at.
const README_BYTES: u64 = 4 << 20;

/// The files of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataFiles {
    /// Those that are read, in the order of their names.
    pub files: Vec<PathBuf>,
    /// Those of its folder that might hold rows too, and are not read.
    pub passed_over: PassedOver,
}

/// The files of a data set: the path itself, or of a folder those with rows, of one kind; where some are named after the
/// training split, those alone.
///
/// # Errors
/// A folder that cannot be read, has no such file, or leaves it open which are meant.
pub fn files(path: &Path) -> Result<DataFiles> {
    if !path.is_dir() {
        return Ok(DataFiles { files: vec![path.to_path_buf()], passed_over: PassedOver::default() });
    }
    let mut listed = Listed::default();
    list(path, "", DEPTH, &mut listed)?;
    listed.names.sort_unstable();
    let Listed { names, mut passed_over } = listed;
    let is_saved = |name: &str| path.join(name).is_file() && names.iter().any(|name| ends(name, ".arrow"));
    if is_saved("state.json") || is_saved("dataset_dict.json") || is_saved("dataset_info.json") {
        return Err(kind::saved_to_disk(path));
    }
    let stated = stated(path)?;
    let chosen = match &stated {
        Some(patterns) => of_readme(path, &names, patterns)?,
        None => of_names(path, &names)?,
    };
    let kind = chosen.first().and_then(|name| KINDS.iter().find(|endings| is_file_of(name, endings)));
    for name in names.iter().filter(|name| !chosen.contains(name) && !describes(name)) {
        let why = match split_of(name) {
            Some(split) if split != TRAIN && has_rows(name) => Why::Split,
            _ if stated.is_some() => Why::Unnamed,
            _ if kind.is_some_and(|endings| is_file_of(name, endings)) => Why::NoSplit,
            _ => Why::Kind,
        };
        passed_over.add(name, why);
    }
    Ok(DataFiles { files: chosen.iter().map(|name| path.join(name)).collect(), passed_over })
}

/// The files that `README.md` says are the training split.
fn of_readme<'n>(path: &Path, names: &'n [String], patterns: &[String]) -> Result<Vec<&'n String>> {
    let meant = |name: &&String| {
        let known = has_rows(name) || REFUSED.iter().any(|ending| ends(name, ending));
        known && patterns.iter().any(|pattern| readme::matches(pattern, name))
    };
    let meant: Vec<&String> = names.iter().filter(meant).collect();
    if meant.is_empty() {
        let reason = format!("its README.md names {}, and no such file is there", patterns.join(", "));
        return Err(Error::DataFile { path: path.to_path_buf(), reason });
    }
    Ok(meant)
}

/// The files whose names say that they hold rows.
fn of_names<'n>(path: &Path, names: &'n [String]) -> Result<Vec<&'n String>> {
    let of_kind = |endings: &[&str]| {
        let is_of = |name: &&String| is_file_of(name, endings);
        let all: Vec<&String> = names.iter().filter(is_of).collect();
        let of_split = |split: Option<&str>| {
            all.iter().copied().filter(|name| split_of(name) == split).collect::<Vec<&String>>()
        };
        [of_split(Some(TRAIN)), of_split(None), all.clone()].into_iter().find(|chosen| !chosen.is_empty())
    };
    let bad = |reason: String| Error::DataFile { path: path.to_path_buf(), reason };
    let [parquet, lines, json] = KINDS.map(of_kind);
    if let (Some(parquet), Some(lines)) = (&parquet, &lines) {
        let reason = format!(
            "has rows in parquet ({}) and in JSON lines ({}); name the file or folder that is meant",
            parquet[0], lines[0]
        );
        return Err(bad(reason));
    }
    if let Some(chosen) = parquet.or(lines).or(json) {
        one_set(path, &chosen)?;
        return Ok(chosen);
    }
    // A file in a form that is not read says better than its folder what it is.
    if let Some(chosen) = of_kind(&REFUSED) {
        return Ok(chosen);
    }
    let some: Vec<&str> = names.iter().take(6).map(String::as_str).collect();
    let there = match names.len() {
        0 => "it is empty".to_owned(),
        few if few == some.len() => format!("it has {}", some.join(", ")),
        many => format!("it has {} and {} more", some.join(", "), many - some.len()),
    };
    Err(bad(format!("a folder without a file of rows (parquet, JSON lines or JSON): {there}")))
}

/// Whether a file's name ends as those of rows do, and it is none that describes others.
fn has_rows(name: &str) -> bool {
    KINDS.iter().any(|endings| is_file_of(name, endings))
}

fn is_file_of(name: &str, endings: &[&str]) -> bool {
    endings.iter().any(|ending| ends(name, ending)) && !describes(name)
}

/// Whether a file describes others.
fn describes(name: &str) -> bool {
    METADATA.contains(&name.rsplit('/').next().unwrap_or(name))
}

fn ends(name: &str, ending: &str) -> bool {
    name.to_ascii_lowercase().ends_with(ending)
}

/// The chosen files must be shards of one set: in one folder, or in folders named after a split.
fn one_set(path: &Path, chosen: &[&String]) -> Result<()> {
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
    Ok(())
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
    if parts.iter().any(|part| part.starts_with(TRAIN)) {
        return Some(TRAIN);
    }
    OTHER_SPLITS.into_iter().find(|split| states(split))
}

/// The patterns that the folder's `README.md` states.
fn stated(path: &Path) -> Result<Option<Vec<String>>> {
    let readme = path.join("README.md");
    if !readme.is_file() {
        return Ok(None);
    }
    // A name that is not UTF-8 says nothing.
    let Ok(text) = read_text(&readme, README_BYTES) else { return Ok(None) };
    readme::train_patterns(&text.replace("\r\n", "\n")).map_err(|names| {
        let names = names.join(", ");
        let reason =
            format!("several configurations ({names}) and none is the default; name the folder or file");
        Error::DataFile { path: path.to_path_buf(), reason }
    })
}

/// The files below a folder.
#[derive(Default)]
struct Listed {
    /// Their names, with `/` between folders.
    names: Vec<String>,
    passed_over: PassedOver,
}

/// All files below a folder; hidden ones are passed over.
fn list(root: &Path, below: &str, depth: usize, listed: &mut Listed) -> Result<()> {
    let folder = root.join(below);
    let io = |source| Error::Io { path: folder.clone(), source };
    for entry in folder.read_dir().map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let Some(name) = name.to_str() else {
            listed.passed_over.add(&format!("{below}/{}", name.display()), Why::Name);
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
        let whole = root.join(&path);
        if whole.is_file() {
            listed.names.push(path);
        } else if whole.is_dir() && depth > 0 {
            list(root, &path, depth - 1, listed)?;
        } else if whole.is_dir() {
            listed.passed_over.add(&path, Why::Deep);
        }
        if listed.names.len() > FILES {
            let reason = "a folder of more than 10,000 files".to_owned();
            return Err(Error::DataFile { path: root.to_path_buf(), reason });
        }
    }
    Ok(())
}
