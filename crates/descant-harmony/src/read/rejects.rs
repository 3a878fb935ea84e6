//! Rows that cannot be used: what becomes of them, and the account of them.

use crate::error::{Error, Result};
use crate::limits;
use crate::read::walk::{Files, place};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::Path;

/// What to do with a row that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnBadRow {
    /// Stop at the first.
    #[default]
    Fail,
    /// Leave it out, count it, and remember its line and reason.
    Skip,
}

/// A row that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// As `Row::number`.
    pub number: u64,
    /// What was wrong with it.
    pub reason: String,
}

/// Rows that were left out: all counted, the first ones with their reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejects {
    /// How many.
    pub count: u64,
    /// The first of them, up to [`limits::REMEMBERED_REJECTS`].
    pub first: Vec<Reject>,
}

/// A row that was left out, as files have it.
#[derive(Serialize, Deserialize)]
struct Line {
    row: u64,
    reason: String,
}

impl Serialize for Rejects {
    /// The count, and the first hundred with line and reason.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let line = |reject: &Reject| Line { row: reject.number, reason: reject.reason.clone() };
        let first: Vec<Line> = self.first.iter().take(100).map(line).collect();
        let mut fields = serializer.serialize_struct("Rejects", 2)?;
        fields.serialize_field("count", &self.count)?;
        fields.serialize_field("first", &first)?;
        fields.end()
    }
}

impl<'de> Deserialize<'de> for Rejects {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Lines {
            count: u64,
            first: Vec<Line>,
        }
        let lines = Lines::deserialize(deserializer)?;
        let reject = |line: Line| Reject { number: line.row, reason: line.reason };
        Ok(Self { count: lines.count, first: lines.first.into_iter().map(reject).collect() })
    }
}

impl Rejects {
    /// What becomes of a row of a data set that cannot be used: with [`OnBadRow::Fail`] the error, with its place.
    pub(crate) fn settle(
        &mut self,
        error: Error,
        on_bad_row: OnBadRow,
        path: &Path,
        files: &Files,
        number: u64,
    ) -> Result<()> {
        let (file, row) = place(path, files, number);
        match on_bad_row {
            OnBadRow::Fail => return Err(error.in_row(file, row)),
            // Of several files, the reason says which.
            OnBadRow::Skip if !files.is_empty() => self.add(number, &error.in_row(file, row)),
            OnBadRow::Skip => self.add(number, &error),
        }
        Ok(())
    }

    /// Adds those of another data set.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        let room = limits::REMEMBERED_REJECTS.saturating_sub(self.first.len());
        self.first.extend(other.first.iter().take(room).cloned());
    }

    /// Adds one.
    pub fn add(&mut self, number: u64, reason: &Error) {
        self.count += 1;
        if self.first.len() < limits::REMEMBERED_REJECTS {
            self.first.push(Reject { number, reason: reason.to_string() });
        }
    }
}
