//! What a file is, by its first bytes: rows that can be read, or something that says by itself how to make rows of it.

use crate::error::{Error, Result};
use crate::read::values::WRAPPERS;
use crate::row::format::Format;
use crate::row::json;
use std::path::Path;

/// How the text of a file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// An object a line.
    Lines,
    /// One array, or objects over several lines.
    Values,
}

/// Files that hold rows in a form that is not read: how they begin, what they are, what turns them into one that is.
const OTHERS: [(&[u8], &str, &str); 16] = [
    (b"ARROW1", "an Arrow file", FEATHER),
    (b"\xff\xff\xff\xff", "an Arrow stream, as `save_to_disk` writes it", ARROW),
    (b"FEA1", "a Feather file", FEATHER),
    (b"\xff\xfe", "UTF-16 text", UTF16),
    (b"\xfe\xff", "UTF-16 text", UTF16),
    (b"{\0", "UTF-16 text", UTF16),
    (b"[\0", "UTF-16 text", UTF16),
    (b"\0{", "UTF-16 text", UTF16),
    (b"PK\x03\x04", "a zip file", "unzip FILE"),
    (b"\xfd7zXZ", "compressed with xz", "xz --decompress FILE"),
    (b"BZh", "compressed with bzip2", "bzip2 --decompress FILE"),
    (b"\x04\x22\x4d\x18", "compressed with lz4", "lz4 -d FILE"),
    (b"SQLite format 3", "an SQLite database", ""),
    (b"version https://git-lfs", "a pointer of Git LFS; the file itself was not fetched", "git lfs pull"),
    (b"<!DOCTYPE", "an HTML page; what was fetched is not the data", ""),
    (b"<html", "an HTML page; what was fetched is not the data", ""),
];
const FEATHER: &str = "python -c \"import pandas as p; p.read_feather('FILE').to_json('rows.jsonl', orient='records', lines=True, force_ascii=False)\"";
const ARROW: &str =
    "python -c \"from datasets import Dataset; Dataset.from_file('FILE').to_json('rows.jsonl')\"";
const UTF16: &str = "iconv -f UTF-16 -t UTF-8 'FILE' > rows.jsonl";
const CSV: &str = "python -c \"import pandas as p; p.read_csv('FILE').to_json('rows.jsonl', orient='records', lines=True, force_ascii=False)\"";
const SAVED: &str =
    "python -c \"from datasets import load_from_disk; load_from_disk('FILE').to_json('rows.jsonl')\"";

/// Refuses a file whose first bytes say that it holds no rows that are read.
///
/// # Errors
/// What it is, and the command that makes rows of it.
pub(super) fn check(path: &Path, start: &[u8]) -> Result<()> {
    let found = OTHERS.iter().find(|(magic, _, _)| start.starts_with(magic));
    match found {
        Some((_, what, command)) => Err(refused(path, what, command)),
        None => Ok(()),
    }
}

/// A folder that `save_to_disk` wrote.
pub(super) fn saved_to_disk(path: &Path) -> Error {
    refused(path, "a folder that `save_to_disk` wrote, in Arrow", SAVED)
}

/// A file of comma-separated values.
pub(super) fn csv(path: &Path) -> Error {
    refused(path, "a CSV file; its columns are texts, and a conversation is a list", CSV)
}

fn refused(path: &Path, what: &str, command: &str) -> Error {
    let command = command.replace("FILE", &path.display().to_string());
    let then =
        if command.is_empty() { String::new() } else { format!("; `{command}` makes JSON lines of it") };
    let then =
        if command.contains("jsonl") { then } else { then.replace(" makes JSON lines of it", " unpacks it") };
    Error::DataFile { path: path.to_path_buf(), reason: format!("{what}{then}") }
}

/// How a text is laid out, by its beginning.
///
/// # Errors
/// It begins like no JSON.
pub(super) fn layout(path: &Path, start: &[u8]) -> Result<Layout> {
    check(path, start)?;
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    match text.first() {
        Some(b'[') => Ok(Layout::Values),
        Some(b'{') => Ok(of_object(text)),
        Some(_) if is_csv(path, text) => Err(csv(path)),
        // A broken first line is a bad row, and the next may be good.
        _ => Ok(Layout::Lines),
    }
}

/// Whether a text that begins with an object has an object a line.
fn of_object(text: &[u8]) -> Layout {
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let line = text[..end].trim_ascii();
    if line == b"{" {
        // A brace alone begins an object over lines, unless the next line is an object: then it is a bad row.
        let next = text[end..].trim_ascii_start().first();
        return if next.is_some_and(|byte| b"\"}".contains(byte)) { Layout::Values } else { Layout::Lines };
    }
    if opens(line) {
        return Layout::Values;
    }
    let rows_inside = |line: &[u8]| {
        let (object, _) = json::object(line).ok()?;
        let wrapped = WRAPPERS.iter().any(|key| object.get(*key).is_some_and(|rows| rows[0].is_object()));
        Some(wrapped && Format::detect(&object).is_none())
    };
    // Longer than what was looked at: its first key decides.
    let long = || WRAPPERS.iter().any(|key| after_key(line, key).is_some_and(|rest| rest.starts_with(b"[")));
    let wrapped = rows_inside(line).unwrap_or_else(|| end == text.len() && long());
    if wrapped { Layout::Values } else { Layout::Lines }
}

/// Whether a line is the beginning of an object that is spread over lines: a brace, perhaps with a first key.
fn opens(line: &[u8]) -> bool {
    let rest = line.strip_prefix(b"{").unwrap_or(line).trim_ascii();
    rest.is_empty()
        || (rest.starts_with(b"\"")
            && (rest.ends_with(b"[") || rest.ends_with(b"[{"))
            && !rest.contains(&b','))
}

/// What follows `{"key":` at the beginning.
fn after_key<'t>(line: &'t [u8], key: &str) -> Option<&'t [u8]> {
    let rest = line.strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"")?;
    let rest = rest.strip_prefix(key.as_bytes())?.strip_prefix(b"\"")?.trim_ascii_start();
    Some(rest.strip_prefix(b":")?.trim_ascii_start())
}

/// A text whose name or first line is that of a table.
fn is_csv(path: &Path, text: &[u8]) -> bool {
    let ending = path.extension().and_then(std::ffi::OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let header = line.iter().all(|byte| byte.is_ascii_graphic() || b" \t\r".contains(byte));
    ["csv", "tsv"].contains(&ending.as_str()) || (header && (line.contains(&b',') || line.contains(&b'\t')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_values_are_told_apart() {
        let of = |text: &str| layout(Path::new("f.json"), text.as_bytes()).unwrap();
        for lines in [
            "{\"text\": \"x\"}\n{\"text\": \"y\"}",
            "{\n{\"text\": \"x\"}",
            "{\"messages\": [{\"role\": \"user\"}]}",
            "{\"data\": 3}\n",
            "x\n{\"text\": \"x\"}",
            "\u{feff}{}",
        ] {
            assert_eq!(of(lines), Layout::Lines, "{lines}");
        }
        let long = format!("{{\"data\": [{{\"text\": \"{}", "x".repeat(99));
        for values in [
            "[",
            " \n[{",
            "{\n  \"a\": 1",
            "{\"data\": [\n",
            "{ \"rows\": [{",
            "{\"data\": [{\"text\": \"x\"}]}",
            &long,
        ] {
            assert_eq!(of(values), Layout::Values, "{values}");
        }
    }

    #[test]
    fn others_say_what_they_are() {
        for (bytes, what) in [
            (&b"PK\x03\x04"[..], "f: a zip file; `unzip f` unpacks it"),
            (b"a,b\n1,2\n", "f: a CSV file"),
            (b"<!DOCTYPE html>", "f: an HTML page; what was fetched is not the data"),
            (b"version https://git-lfs.github.com/spec/v1\n", "f: a pointer of Git LFS"),
        ] {
            let error = layout(Path::new("f"), bytes).unwrap_err().to_string();
            assert!(error.starts_with(what), "{error}");
        }
    }
}
