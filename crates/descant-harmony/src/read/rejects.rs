//! Rows that cannot be used: what becomes of them, and the account of them.

use crate::error::{Error, Result};
use crate::limits;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize};

/// What to do with a row that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

impl Serialize for Rejects {
    /// The count, and the first hundred with line and reason.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line {
            row: u64,
            reason: String,
        }
        let line = |reject: &Reject| Line { row: reject.number, reason: reject.reason.clone() };
        let first: Vec<Line> = self.first.iter().take(100).map(line).collect();
        let mut fields = serializer.serialize_struct("Rejects", 2)?;
        fields.serialize_field("count", &self.count)?;
        fields.serialize_field("first", &first)?;
        fields.end()
    }
}

impl Rejects {
    /// Adds one.
    pub fn add(&mut self, number: u64, reason: &Error) {
        self.count += 1;
        if self.first.len() < limits::REMEMBERED_REJECTS {
            self.first.push(Reject { number, reason: reason.to_string() });
        }
    }
}
