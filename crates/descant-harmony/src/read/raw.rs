//! A row as it is in its file: cheap to find, for one thread, and to be taken apart by many.

use crate::error::{Error, Result};
use crate::read::folder;
use crate::read::kind::{self, Layout};
use crate::read::{inflate, lines, parquet, values};
use crate::row::body::Row;
use crate::row::format::Format;
use crate::row::ignored::Ignored;
use crate::row::{json, unfit};
use serde_json::{Map, Value as Json};
use std::io::BufRead as _;
use std::path::Path;

/// A row that nobody has looked into.
#[derive(Debug)]
pub(crate) enum Raw {
    /// The text of an object.
    Text(Vec<u8>),
    /// The columns of a row.
    Columns(Map<String, Json>),
}

impl Raw {
    /// The object it is, nothing dropped.
    pub(crate) fn object(self) -> Result<Map<String, Json>> {
        match self {
            Self::Columns(object) => Ok(object),
            Self::Text(text) => {
                let (mut object, marked) = json::object(&text)?;
                if marked {
                    unfit::settle(&mut object)?;
                }
                Ok(object)
            }
        }
    }

    /// The row it is, in the given form, else in that of its keys.
    pub(crate) fn row(self, number: u64, given: Option<Format>) -> Result<(Format, Row)> {
        let columns = matches!(self, Self::Columns(_));
        let mut object = self.object()?;
        if columns {
            // A column gives every struct all keys of all rows; those that this row did not have are null.
            object.values_mut().for_each(drop_nulls);
        }
        let form = Format::of(&object, given)?;
        Ok((form, form.row(number, &object)?))
    }

    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Columns(object) => object.values().map(parquet::text_bytes).sum(),
        }
    }
}

/// Gives every row of a file, with its number and how many bytes of the file are read, or what kept it from being read.
/// Of parquet only `columns` are read, where some are named. Keys that are beside the rows of a file go to `beside`.
pub(crate) fn each_raw(
    file: &Path,
    columns: Option<&[&str]>,
    beside: &mut Ignored,
    take: &mut dyn FnMut(u64, Result<Raw>, u64) -> Result<()>,
) -> Result<()> {
    if inflate::magic(file)? == parquet::MAGIC {
        return parquet::each_row(file, columns, &mut |number, row, read| {
            take(number, row.map(Raw::Columns), read)
        });
    }
    let (mut reader, read) = inflate::open(file)?;
    let start = reader.fill_buf().map_err(|source| Error::Io { path: file.to_path_buf(), source })?;
    if start.is_empty() {
        return Err(Error::DataFile { path: file.to_path_buf(), reason: "an empty file".to_owned() });
    }
    let layout = kind::layout(file, start)?;
    let mut each = |number: u64, text: Result<Vec<u8>>| take(number, text.map(Raw::Text), read.bytes());
    match layout {
        Layout::Lines => lines::each_line(&mut reader, file, &mut each),
        Layout::Values => values::each_value(&mut reader, file, beside, &mut each),
    }
}

/// Which columns of a parquet file are read. JSON rows are always whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// Those that some form of a training row uses.
    OfForms,
    /// All. Keys of a struct that are null in a row are left out of it, as a JSON row would leave them out: a column
    /// gives every struct the keys of all rows.
    All,
}

/// Gives every row of a file as an object, unchecked, or what kept it from being read. Ends at the first error that
/// `take` returns. Of a folder, its files are read one after the other.
///
/// # Errors
/// When a file cannot be read, and whatever `take` returns.
pub fn each_object(
    path: &Path,
    columns: Columns,
    mut take: impl FnMut(u64, Result<Map<String, Json>>) -> Result<()>,
) -> Result<()> {
    let of_forms: &[&str] = &crate::row::columns::COLUMNS;
    let chosen = (columns == Columns::OfForms).then_some(of_forms);
    let mut before = 0;
    for file in folder::files(path)?.files {
        let mut last = 0;
        each_raw(&file, chosen, &mut Ignored::default(), &mut |number, raw, _| {
            last = number;
            let is_columns = matches!(raw, Ok(Raw::Columns(_)));
            let mut object = raw.and_then(Raw::object);
            if let (true, Columns::All, Ok(object)) = (is_columns, columns, &mut object) {
                object.values_mut().for_each(drop_nulls);
            }
            take(before + number, object)
        })?;
        before += last;
    }
    Ok(())
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
