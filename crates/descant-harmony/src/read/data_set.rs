//! Data sets from files: which form they have, which rows are good, and what was wrong with the others.
//!
//! Reading never loses a row in silence: a bad row either ends the reading with its line and reason, or is counted and
//! remembered with them.

use crate::error::{Error, Result};
use crate::read::kind::Layout;
use crate::read::rejects::{OnBadRow, Rejects};
use crate::read::{folder, inflate, kind, lines, parquet, values};
use crate::row::body::Row;
use crate::row::columns::COLUMNS;
use crate::row::format::Format;
use crate::row::ignored::{Ignored, Place, carries_nothing};
use crate::row::{json, unfit};
use serde_json::{Map, Value as Json};
use std::io::BufRead as _;
use std::path::{Path, PathBuf};

/// A data set in memory.
#[derive(Debug)]
pub struct DataSet {
    /// The file, or the folder of its files.
    pub path: PathBuf,
    /// Of several files: how many rows stand before each, and its path.
    pub files: Vec<(u64, PathBuf)>,
    /// The form of its rows; absent when no row was good.
    pub format: Option<Format>,
    /// The good rows, in the file's order.
    pub rows: Vec<Row>,
    /// The others.
    pub rejects: Rejects,
    /// Columns that were not read.
    pub ignored: Ignored,
}

impl DataSet {
    /// The file of a row, and the row's number in it.
    pub fn place(&self, number: u64) -> (&Path, u64) {
        let file = self.files.iter().rev().find(|(before, _)| *before < number);
        file.map_or((&self.path, number), |(before, file)| (file, number - before))
    }
}

/// How a file is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The form of its rows; that of the first good row when absent.
    pub format: Option<Format>,
    /// What to do with a bad row.
    pub on_bad_row: OnBadRow,
}

/// Reads a data set: parquet, JSON lines or a JSON array, plain or in gzip or zstd; told apart by their first bytes. Of
/// a folder, its files one after the other.
///
/// # Errors
/// When a file cannot be read, and under [`OnBadRow::Fail`] at the first bad row.
pub fn read(path: &Path, options: &ReadOptions) -> Result<DataSet> {
    let mut set = DataSet {
        path: path.to_path_buf(),
        files: Vec::new(),
        format: options.format,
        rows: Vec::new(),
        rejects: Rejects::default(),
        ignored: Ignored::default(),
    };
    let files = folder::files(path)?;
    let mut before = 0;
    for file in &files {
        if files.len() > 1 {
            set.files.push((before, file.clone()));
        }
        before += set.add(file, before, options.on_bad_row)?;
    }
    if set.rows.is_empty() && set.rejects.count == 0 {
        return Err(Error::DataFile { path: path.to_path_buf(), reason: "holds no row".to_owned() });
    }
    Ok(set)
}

impl DataSet {
    /// Adds the rows of a file, behind those that are there; the number of its last.
    fn add(&mut self, file: &Path, before: u64, on_bad_row: OnBadRow) -> Result<u64> {
        let columns = inflate::magic(file)? == b"PAR1";
        let mut last = 0;
        each_of(file, &mut |number, object| {
            last = number;
            let row = object.and_then(|mut object| {
                if columns {
                    // A column gives every struct all keys of all rows; those that this row did not have are null.
                    object.values_mut().for_each(drop_nulls);
                }
                let form = Format::of(&object, self.format)?;
                let row = form.row(before + number, &object)?;
                self.format = Some(form);
                Ok(row)
            });
            match row {
                Ok(row) => self.rows.push(row),
                Err(error) if on_bad_row == OnBadRow::Fail => return Err(error.in_row(file, number)),
                // Of several files, the reason tells which.
                Err(error) if !self.files.is_empty() => {
                    self.rejects.add(before + number, &error.in_row(file, number));
                }
                Err(error) => self.rejects.add(number, &error),
            }
            Ok(())
        })?;
        if columns {
            for name in parquet::other_columns(file, &COLUMNS)? {
                if !carries_nothing(Place::Row, &name) {
                    self.ignored.add_times(Place::Row, &name, last);
                }
            }
        }
        Ok(last)
    }
}

/// Gives every row of a file as the object it is, nothing dropped or checked, or what kept it from being read. Ends at
/// the first error that `take` returns. Of parquet only the columns that some form uses are read; of a folder, its files
/// one after the other.
///
/// # Errors
/// When a file cannot be read, and whatever `take` returns.
pub fn each_object(
    path: &Path,
    mut take: impl FnMut(u64, Result<Map<String, Json>>) -> Result<()>,
) -> Result<()> {
    let mut before = 0;
    for file in folder::files(path)? {
        let mut last = 0;
        each_of(&file, &mut |number, object| {
            last = number;
            take(before + number, object)
        })?;
        before += last;
    }
    Ok(())
}

/// Every row of one file.
fn each_of(file: &Path, take: &mut impl FnMut(u64, Result<Map<String, Json>>) -> Result<()>) -> Result<()> {
    if inflate::magic(file)? == b"PAR1" {
        return parquet::each_row(file, &COLUMNS, take);
    }
    let mut reader = inflate::open(file)?;
    let start = reader.fill_buf().map_err(|source| Error::Io { path: file.to_path_buf(), source })?;
    if start.is_empty() {
        return Err(Error::DataFile { path: file.to_path_buf(), reason: "an empty file".to_owned() });
    }
    let mut each = |number: u64, text: Result<Vec<u8>>| take(number, text.and_then(|text| object(&text)));
    match kind::layout(file, start)? {
        Layout::Lines => lines::each_line(&mut reader, file, &mut each),
        Layout::Values => values::each_value(&mut reader, file, &mut each),
    }
}

/// The object on a line.
fn object(line: &[u8]) -> Result<Map<String, Json>> {
    let (mut object, marked) = json::object(line)?;
    if marked {
        unfit::settle(&mut object)?;
    }
    Ok(object)
}

/// Drops keys with null, however deep.
fn drop_nulls(json: &mut Json) {
    match json {
        Json::Array(items) => items.iter_mut().for_each(drop_nulls),
        Json::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_dropped_however_deep_and_list_places_are_kept() {
        let mut row =
            serde_json::json!({"a": null, "b": [{"c": null, "d": 1}, null], "e": {"f": {"g": null}}});
        drop_nulls(&mut row);
        assert_eq!(row, serde_json::json!({"b": [{"d": 1}, null], "e": {"f": {}}}));
    }
}
