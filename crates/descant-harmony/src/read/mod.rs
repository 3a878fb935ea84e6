//! The files that rows come from: which form they have, which rows are good, and what was wrong with the others.

mod data_set;
mod folder;
mod inflate;
mod kind;
mod lines;
mod parquet;
mod readme;
mod rejects;
mod values;

pub use crate::row::body::{Body, Row};
pub use crate::row::format::Format;
pub use data_set::{DataSet, ReadOptions, each_object, read};
pub use rejects::{OnBadRow, Reject, Rejects};
