//! The crate's tests against the real gpt-oss vocabulary, rendered references and real files.
//!
//! One binary, so that the 28 MB vocabulary is built once.

#![expect(clippy::unwrap_used, reason = "clippy knows test functions and not what they share")]

mod batches;
mod cases;
mod codecs;
mod crafted;
mod data;
mod data_page;
mod hostile;
mod masks;
mod oracle;
mod packing;
mod parity;
mod parsing;
mod previews;
mod replies;
mod streams;
mod support;
mod tokens;
mod views;
mod vocabulary;
