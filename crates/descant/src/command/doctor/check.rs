//! One thing that was looked at.

use serde_json::{Value, json};

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// As a run wants it.
    Ok,
    /// A run works without it.
    Note,
    /// A run will fail.
    Bad,
}

impl State {
    pub(super) fn mark(self, utf8: bool) -> &'static str {
        match (self, utf8) {
            (Self::Ok, true) => "✓",
            (Self::Ok, false) => "ok",
            (Self::Note, _) => "-",
            (Self::Bad, true) => "✗",
            (Self::Bad, false) => "NO",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Bad => "bad",
        }
    }
}

/// What was looked at, what was found, what to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) state: State,
    pub(super) text: String,
    pub(super) todo: Option<String>,
    facts: Value,
}

impl Check {
    pub(super) fn ok(name: &'static str, text: impl Into<String>, facts: Value) -> Self {
        Self { name, state: State::Ok, text: text.into(), todo: None, facts }
    }

    pub(super) fn note(name: &'static str, text: impl Into<String>, facts: Value) -> Self {
        Self { state: State::Note, ..Self::ok(name, text, facts) }
    }

    /// The same, which a run works without; with what to do to have it.
    pub(super) fn or_note(self, todo: impl Into<String>) -> Self {
        Self { state: State::Note, todo: Some(todo.into()), ..self }
    }

    /// The same, which must be mended.
    pub(super) fn bad(self, todo: impl Into<String>) -> Self {
        Self { state: State::Bad, todo: Some(todo.into()), ..self }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "name": self.name, "state": self.state.name(), "text": self.text, "todo": self.todo, "facts": self.facts,
        })
    }
}
