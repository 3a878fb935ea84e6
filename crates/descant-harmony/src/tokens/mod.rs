//! From text to ids and back.

mod bpe;
mod letters;
mod merges;
mod ranks;
pub(crate) mod special;
pub(crate) mod stream;
pub(crate) mod tokenizer;
mod tokenizer_file;
pub mod vocabulary;
mod words;
