//! What a run shows when it is over: a table, samples side by side, one HTML file.

mod html;
mod plot;
mod samples;
mod table;

pub(crate) use html::{Page, render};
pub(crate) use samples::{Sample, side_by_side};
pub(crate) use table::Table;
