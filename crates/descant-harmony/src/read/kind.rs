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

/// What can be done about a file that is not read.
#[derive(Clone, Copy)]
enum Way {
    /// A command that makes JSON lines of it, with FILE in place of its name.
    Lines(&'static str),
    /// A command that gives the file that is meant, and what it does.
    First(&'static str, &'static str),
    /// None that is the same for all such files.
    None,
}
use Way::{First, Lines};

/// Files that hold rows in a form that is not read: how they begin, what they are, what is to be done about it. The
/// first that fits is meant.
const OTHERS: [(&[u8], &str, Way); 34] = [
    (b"ARROW1", "an Arrow file", Lines(FEATHER)),
    (b"\xff\xff\xff\xff", "an Arrow stream, as `save_to_disk` writes it", Lines(ARROW)),
    (b"FEA1", "a Feather file", Lines(FEATHER)),
    (b"ORC", "an ORC file", Lines(ORC)),
    (b"Obj\x01", "an Avro file", Way::None),
    (b"\xff\xfe\0\0", "UTF-32 text", Lines(UTF32)),
    (b"\0\0\xfe\xff", "UTF-32 text", Lines(UTF32)),
    (b"\xff\xfe", "UTF-16 text", Lines(UTF16)),
    (b"\xfe\xff", "UTF-16 text", Lines(UTF16)),
    (b"{\0", "UTF-16 text", Lines(UTF16)),
    (b"[\0", "UTF-16 text", Lines(UTF16)),
    (b"\0{", "UTF-16 text", Lines(UTF16)),
    (b"\0[", "UTF-16 text", Lines(UTF16)),
    (b"PK\x03\x04", "a zip file", First("unzip 'FILE'", UNPACKS)),
    (b"\xfd7zXZ", "compressed with xz", First("xz --decompress 'FILE'", UNPACKS)),
    (b"BZh", "compressed with bzip2", First("bzip2 --decompress 'FILE'", UNPACKS)),
    (b"\x04\x22\x4d\x18", "compressed with lz4", First("lz4 -d 'FILE'", UNPACKS)),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", First("7z x 'FILE'", UNPACKS)),
    (b"Rar!", "a RAR archive", First("unrar x 'FILE'", UNPACKS)),
    // What lies inside a file that was unpacked already.
    (b"\x1f\x8b", "compressed twice, with gzip inside", First("gunzip 'FILE'", "takes one away")),
    (b"\x28\xb5\x2f\xfd", "compressed twice, with zstd inside", First("unzstd 'FILE'", "takes one away")),
    (b"PAR1", "compressed parquet, which is packed in itself", First("gunzip 'FILE'", UNPACKS)),
    (b"SQLite format 3", "an SQLite database", Way::None),
    (b"\x89HDF", "an HDF5 file", Way::None),
    (b"\x93NUMPY", "a NumPy array", Way::None),
    (b"\x80\x04\x95", "a pickle, which is a program; it is not run", Way::None),
    (b"\x80\x05\x95", "a pickle, which is a program; it is not run", Way::None),
    (b"%PDF", "a PDF", Way::None),
    (
        b"version https://git-lfs",
        "a pointer of Git LFS; the file itself was not fetched",
        First("git lfs pull", "fetches it"),
    ),
    (b"<!DOCTYPE", HTML, Way::None),
    (b"<!doctype", HTML, Way::None),
    (b"<html", HTML, Way::None),
    (b"<HTML", HTML, Way::None),
    (b"<?xml", "XML", Way::None),
];
const HTML: &str = "an HTML page; what was fetched is not the data";
const UNPACKS: &str = "unpacks it";
/// Where a tar archive says what it is.
const TAR: (usize, &[u8]) = (257, b"ustar");
/// Endings of files that say nothing at their beginning.
const ENDINGS: [(&str, &str, Way); 5] = [
    ("xlsx", "an Excel workbook", Lines(EXCEL)),
    ("xls", "an Excel workbook", Lines(EXCEL)),
    ("yaml", "YAML", Lines(YAML)),
    ("yml", "YAML", Lines(YAML)),
    ("toml", "TOML", Way::None),
];
const FEATHER: &str = "python -c \"import pandas as p; p.read_feather('FILE').to_json('rows.jsonl', orient='records', lines=True, force_ascii=False)\"";
const ORC: &str = "python -c \"import pandas as p; p.read_orc('FILE').to_json('rows.jsonl', orient='records', lines=True, force_ascii=False)\"";
const EXCEL: &str = "python -c \"import pandas as p; p.read_excel('FILE').to_json('rows.jsonl', orient='records', lines=True, force_ascii=False)\"";
const ARROW: &str =
    "python -c \"from datasets import Dataset; Dataset.from_file('FILE').to_json('rows.jsonl')\"";
const UTF16: &str = "iconv -f UTF-16 -t UTF-8 'FILE' > rows.jsonl";
const UTF32: &str = "iconv -f UTF-32 -t UTF-8 'FILE' > rows.jsonl";
const CSV: &str = "python -c \"import pandas as p; p.read_csv('FILE', sep=None, engine='python').to_json('rows.jsonl', orient='records', lines=True, force_ascii=False)\"";
const YAML: &str = "python -c \"import json, yaml; [print(json.dumps(row, default=str)) for row in yaml.safe_load(open('FILE'))]\" > rows.jsonl";
const SAVED: &str =
    "python -c \"from datasets import load_from_disk; load_from_disk('FILE').to_json('rows.jsonl')\"";

/// Refuses a file whose first bytes, or else its ending, say that it holds no rows that are read.
///
/// # Errors
/// What it is, and the command that makes rows of it.
pub(super) fn check(path: &Path, start: &[u8]) -> Result<()> {
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let is_json = text.first().is_some_and(|byte| b"{[".contains(byte)) && text.get(1) != Some(&0);
    let ending = path.extension().and_then(std::ffi::OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
    let by_ending = ENDINGS.iter().filter(|_| !is_json).find(|(known, ..)| *known == ending);
    if let Some((_, what, way)) = by_ending {
        return Err(refused(path, what, *way));
    }
    if let Some((_, what, way)) = OTHERS.iter().find(|(magic, ..)| start.starts_with(magic)) {
        return Err(refused(path, what, *way));
    }
    if start.get(TAR.0..).is_some_and(|rest| rest.starts_with(TAR.1)) {
        return Err(refused(path, "a tar archive", First("tar -xf 'FILE'", UNPACKS)));
    }
    if !is_json && text.iter().take(LOOKED_AT).any(|byte| *byte == 0) {
        return Err(refused(path, "no text, and of no kind that is known", Way::None));
    }
    Ok(())
}

/// Bytes of a beginning that must be text.
const LOOKED_AT: usize = 512;

/// A folder that `save_to_disk` wrote.
pub(super) fn saved_to_disk(path: &Path) -> Error {
    refused(path, "a folder that `save_to_disk` wrote, in Arrow", Lines(SAVED))
}

fn refused(path: &Path, what: &str, way: Way) -> Error {
    let (command, does) = match way {
        Lines(command) => (command, "makes JSON lines of it"),
        First(command, does) => (command, does),
        Way::None => {
            return Error::DataFile {
                path: path.to_path_buf(),
                reason: format!("{what}; rows are read from JSON lines, a JSON array or parquet"),
            };
        }
    };
    let command = command.replace("FILE", &path.display().to_string());
    Error::DataFile { path: path.to_path_buf(), reason: format!("{what}; `{command}` {does}") }
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
        Some(_) if is_table(path, text) => {
            let what = "a table of texts (CSV); a conversation is a list";
            Err(refused(path, what, Lines(CSV)))
        }
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
fn is_table(path: &Path, text: &[u8]) -> bool {
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
            (&b"PK\x03\x04"[..], "f: a zip file; `unzip 'f'` unpacks it"),
            (b"a,b\n1,2\n", "f: a table of texts (CSV); a conversation is a list; `python -c"),
            (b"\x1f\x8b\x08", "f: compressed twice, with gzip inside; `gunzip 'f'` takes one away"),
            (b"\x00\x01\x02", "f: no text, and of no kind"),
            (b"<!DOCTYPE html>", "f: an HTML page; what was fetched is not the data"),
            (
                b"version https://git-lfs.github.com/spec/v1\n",
                "f: a pointer of Git LFS; the file itself was not fetched; `git lfs pull` fetches it",
            ),
        ] {
            let error = layout(Path::new("f"), bytes).unwrap_err().to_string();
            assert!(error.starts_with(what), "{error}");
        }
    }

    #[test]
    fn endings_count_only_where_the_text_is_no_json() {
        let of = |name: &str, bytes: &[u8]| layout(Path::new(name), bytes).map_err(|error| error.to_string());
        assert!(of("f.xlsx", b"PK\x03\x04").unwrap_err().starts_with("f.xlsx: an Excel workbook; `python"));
        assert!(of("f.yaml", b"- a: b\n").unwrap_err().starts_with("f.yaml: YAML; `python"));
        assert!(of("f.toml", b"a = 1\n").unwrap_err().contains("TOML; rows are read from"));
        assert_eq!(of("f.yaml", b"{\"text\": \"x\"}\n"), Ok(Layout::Lines));
        let tar = [vec![b'a'; 257], b"ustar\0".to_vec()].concat();
        assert!(of("f", &tar).unwrap_err().starts_with("f: a tar archive; `tar -xf 'f'` unpacks it"));
    }
}
