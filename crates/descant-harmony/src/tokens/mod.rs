//! From text to ids and back.

mod merges;
pub(crate) mod special;
pub(crate) mod tokenizer;
mod tokenizer_file;
#[cfg(feature = "gpt-oss-vocabulary")]
pub mod vocabulary;
mod words;
