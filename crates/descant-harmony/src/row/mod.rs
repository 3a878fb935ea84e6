//! What a row says: a conversation, or text that is Harmony already. No files, no template, no tokens.

pub(crate) mod body;
pub(crate) mod channel;
pub(crate) mod columns;
mod content;
pub mod conversation;
pub(crate) mod date;
mod fields;
pub(crate) mod format;
mod head;
pub(crate) mod ignored;
pub(crate) mod input;
pub(crate) mod json;
pub(crate) mod mark;
mod message;
mod think;
mod tool;
pub(crate) mod unfit;
mod weight;
