//! From ids to messages: who says what on which channel, and where it is.

pub(crate) mod header;
pub mod parse;
pub(crate) mod reply;
pub(crate) mod scan;
