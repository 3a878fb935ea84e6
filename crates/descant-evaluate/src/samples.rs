//! `samples.jsonl`: the header, every reply, what decoding took, and losses. Every figure comes from here.
//!
//! Grows a batch at a time, each brought to the disk, so that an evaluation that is broken off continues where it was.
//! A half last line is dropped on reading.

mod header;
mod lines;
mod read;
mod write;

pub use header::{AskedHow, Header, Source};
pub use lines::{Batch, First, Key, Loss, Nats, Reply};
pub use read::Samples;
pub use write::Writer;
