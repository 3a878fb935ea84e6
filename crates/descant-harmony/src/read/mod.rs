//! The files that rows come from: which form they have, which rows are good, and what was wrong with the others.

pub(crate) mod data_set;
mod folder;
mod inflate;
mod kind;
mod lines;
mod parquet;
mod parquet_pages;
mod passed_over;
pub(crate) mod raw;
mod readme;
mod rejects;
mod values;
pub(crate) mod walk;

pub use crate::row::body::{Body, Row};
pub use crate::row::format::Format;
pub use data_set::{DataSet, ReadOptions, read};
pub use folder::{DataFiles, files as data_files};
pub use passed_over::{Group, PassedOver, Why};
pub use raw::{Columns, each_object};
pub use rejects::{OnBadRow, Reject, Rejects};
