//! What a run shows: key figures, tables and replies as text, one HTML file, the model card.

mod card;
mod events;
mod export;
mod html;
mod key;
mod run_files;
mod samples;
mod sentences;
mod sparks;
mod survival;
mod table;
mod text;

pub(crate) use card::card;
pub(crate) use events::{FILE as EVENTS, event_file};
pub(crate) use export::export_table;
pub(crate) use html::{render, side_by_side};
pub(crate) use key::{HIT, Way, figures};
pub(crate) use run_files::RunFiles;
pub(crate) use samples::{Sample, compared, parts, samples_of};
pub(crate) use sentences::{collapse, outcome, verdict, worse};
pub(crate) use sparks::sparks;
pub(crate) use table::{Long, key_figures, long as long_table};
pub(crate) use text::evaluation_text;
