//! Data sets from files: which form they have, which rows are good, and what was wrong with the others.
//!
//! Reading never loses a row in silence: a bad row either ends the reading with its line and reason, or is counted and
//! remembered with them.

use crate::error::{Error, Result};
use crate::read::passed_over::PassedOver;
use crate::read::rejects::{OnBadRow, Rejects};
use crate::read::walk::{self, Walk};
use crate::row::body::Row;
use crate::row::format::Format;
use crate::row::ignored::Ignored;
use std::path::{Path, PathBuf};

/// A data set in memory.
#[derive(Debug)]
pub struct DataSet {
    /// The file, or the folder of its files.
    pub path: PathBuf,
    /// Of several files: how many rows are before each, and its path.
    pub files: Vec<(u64, PathBuf)>,
    /// The form of its rows; absent when no row was good.
    pub format: Option<Format>,
    /// The good rows, in the file's order.
    pub rows: Vec<Row>,
    /// The others.
    pub rejects: Rejects,
    /// Columns that were not read.
    pub ignored: Ignored,
    /// Files of a folder that were not.
    pub passed_over: PassedOver,
}

impl DataSet {
    /// Rows that nothing else is known of.
    pub fn of(path: &Path, rows: Vec<Row>) -> Self {
        Self {
            path: path.to_path_buf(),
            files: Vec::new(),
            format: None,
            rows,
            rejects: Rejects::default(),
            ignored: Ignored::default(),
            passed_over: PassedOver::default(),
        }
    }

    /// The file of a row, and the row's number in it.
    pub fn place(&self, number: u64) -> (&Path, u64) {
        walk::place(&self.path, &self.files, number)
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

/// Reads a data set: parquet, JSON lines or a JSON array, plain or in gzip or zstd; distinguished by their first bytes.
/// Of a folder, its files one after the other.
///
/// # Errors
/// When a file cannot be read, and under [`OnBadRow::Fail`] at the first bad row.
pub fn read(path: &Path, options: &ReadOptions) -> Result<DataSet> {
    let mut set = DataSet { format: options.format, ..DataSet::of(path, Vec::new()) };
    let walk = Walk::new(path)?;
    set.passed_over.clone_from(&walk.passed_over);
    walk.each(|chunk, files| {
        set.ignored.merge(&chunk.ignored);
        set.files.clone_from(files);
        chunk.rows.into_iter().try_for_each(|(number, raw)| {
            match raw.and_then(|raw| raw.row(number, set.format)) {
                Ok((form, row)) => {
                    set.format = Some(form);
                    set.rows.push(row);
                    Ok(())
                }
                Err(error) => set.rejects.settle(error, options.on_bad_row, path, files, number),
            }
        })
    })?;
    some_row(path, set.rows.len() as u64 + set.rejects.count)?;
    Ok(set)
}

/// A data set without any row is none.
pub(crate) fn some_row(path: &Path, rows: u64) -> Result<()> {
    if rows == 0 {
        return Err(Error::DataFile { path: path.to_path_buf(), reason: "has no rows".to_owned() });
    }
    Ok(())
}
