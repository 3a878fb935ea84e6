//! Data sets from files: which form they have, which rows are good, and what was wrong with the others.
//!
//! Reading never loses a row in silence: a bad row either ends the reading with its line and reason, or is counted and
//! remembered with them.

mod json;
mod lines;
mod parquet;

use crate::conversation::Conversation;
use crate::error::{Error, Result};
use serde_json::{Map, Value as Json};
use std::path::{Path, PathBuf};

/// What to do with a row that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRow {
    /// Stop at the first.
    #[default]
    Fail,
    /// Leave it out, count it, and remember its line and reason.
    Skip,
}

/// One row of a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The line of a text file, the row of a parquet file; the first is 1.
    pub number: u64,
    /// The conversation.
    pub conversation: Conversation,
    /// The language that the reasoning is meant to be in, where the data set says so.
    pub reasoning_language: Option<String>,
}

/// A row that was left out.
#[derive(Debug)]
pub struct Reject {
    /// As [`Row::number`].
    pub number: u64,
    /// What was wrong with it.
    pub reason: Error,
}

/// A data set in memory.
#[derive(Debug)]
pub struct DataSet {
    /// The file.
    pub path: PathBuf,
    /// The good rows, in the file's order.
    pub rows: Vec<Row>,
    /// How many rows were left out.
    pub rejected: u64,
    /// The first of those, up to [`crate::limits::REMEMBERED_REJECTS`].
    pub rejects: Vec<Reject>,
}

/// Columns that are read; all others are skipped.
const COLUMNS: [&str; 8] = [
    "messages",
    "tools",
    "template_kwargs",
    "reasoning_effort",
    "model_identity",
    "builtin_tools",
    "current_date",
    "reasoning_language",
];

/// Reads a data set of conversations: parquet by its magic bytes, JSON lines otherwise.
///
/// # Errors
/// When the file cannot be read, and under [`OnBadRow::Fail`] at the first bad row.
pub fn read(path: &Path, on_bad_row: OnBadRow) -> Result<DataSet> {
    let mut set = DataSet { path: path.to_path_buf(), rows: Vec::new(), rejected: 0, rejects: Vec::new() };
    let mut take = |number: u64, row: Result<Map<String, Json>>| {
        match row.and_then(|row| conversation(number, &row)) {
            Ok(row) => set.rows.push(row),
            Err(error) if on_bad_row == OnBadRow::Fail => return Err(error.in_row(path, number)),
            Err(reason) => {
                set.rejected += 1;
                if set.rejects.len() < crate::limits::REMEMBERED_REJECTS {
                    set.rejects.push(Reject { number, reason });
                }
            }
        }
        Ok(())
    };
    if parquet::is_parquet(path)? {
        parquet::each_row(path, &COLUMNS, &mut take)?;
    } else {
        lines::each_line(path, &mut |number, line| take(number, line.and_then(|line| json::object(&line))))?;
    }
    Ok(set)
}

fn conversation(number: u64, row: &Map<String, Json>) -> Result<Row> {
    let reasoning_language = row.get("reasoning_language").and_then(Json::as_str).map(str::to_owned);
    Ok(Row { number, conversation: Conversation::from_json(row)?, reasoning_language })
}
