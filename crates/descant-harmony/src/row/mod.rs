//! What a row says: a conversation, or text that is Harmony already. No files, no template, no tokens.

pub(crate) mod body;
pub mod conversation;
pub(crate) mod date;
pub(crate) mod format;
mod from_json;
pub(crate) mod input;
pub(crate) mod json;
