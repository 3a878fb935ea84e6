//! One row of a data set.

use crate::row::conversation::Conversation;
use crate::row::ignored::Ignored;

/// What a row holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A conversation, still to be rendered.
    Conversation(Conversation),
    /// Harmony text, rendered already.
    Text(String),
}

/// One row of a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The line of a text file, the row of a parquet file; the first is 1. Of several files, counted through them all.
    pub number: u64,
    /// What it holds.
    pub body: Body,
    /// The language that the reasoning is meant to be in, where the data set says so.
    pub reasoning_language: Option<String>,
    /// Keys that are not used.
    pub ignored: Ignored,
}

impl Row {
    /// A row of this number, with nothing beside its body.
    pub fn new(number: u64, body: Body) -> Self {
        Self { number, body, reasoning_language: None, ignored: Ignored::default() }
    }

    /// The conversation, unless the row is text.
    pub fn conversation(&self) -> Option<&Conversation> {
        match &self.body {
            Body::Conversation(conversation) => Some(conversation),
            Body::Text(_) => None,
        }
    }
}
