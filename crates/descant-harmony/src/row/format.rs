//! The forms in which conversations are published, and how each becomes a [`Conversation`].
//!
//! | form | a row |
//! | --- | --- |
//! | `messages` | `{"messages": [{"role", "content", "thinking", "tool_calls"}], "tools", ...}` (Multilingual-Thinking, OpenAI) |
//! | `sharegpt` | `{"conversations": [{"from": "human", "value": "..."}], "system"}` |
//! | `alpaca` | `{"instruction", "input", "output", "system"}` |
//! | `prompt_completion` | `{"prompt", "completion"}`, texts or lists of messages |
//! | `text` | `{"text": "<\|start\|>system..."}`, rendered already |
//!
//! The form of a file is that of its first good row; a row in another form is a bad row, not a guess.

use crate::error::{Error, Result};
use crate::row::body::{Body, Row};
use crate::row::conversation::{Conversation, Message, Role};
use crate::row::from_json::head;
use crate::row::json;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::fmt;
use std::str::FromStr;

/// The form of a data set's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Format {
    /// Lists of messages with roles.
    Messages,
    /// ShareGPT's `conversations` with `from` and `value`.
    #[serde(rename = "sharegpt")]
    ShareGpt,
    /// Alpaca's `instruction`, `input` and `output`.
    Alpaca,
    /// `prompt` and `completion`.
    PromptCompletion,
    /// Harmony text, rendered already.
    Text,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Messages => "messages",
            Self::ShareGpt => "sharegpt",
            Self::Alpaca => "alpaca",
            Self::PromptCompletion => "prompt_completion",
            Self::Text => "text",
        })
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|format| format.to_string() == text);
        known.ok_or_else(|| {
            let text: String = text.chars().take(40).collect();
            let known = Self::ALL.map(|format| format.to_string()).join(", ");
            Error::field("format", format!("`{text}` is none of {known}"))
        })
    }
}

impl Format {
    /// Every form.
    pub const ALL: [Self; 5] =
        [Self::Messages, Self::ShareGpt, Self::Alpaca, Self::PromptCompletion, Self::Text];

    /// Every column that any form uses.
    pub(crate) const COLUMNS: [&'static str; 19] = [
        "id",
        "messages",
        "conversations",
        "instruction",
        "input",
        "output",
        "prompt",
        "completion",
        "text",
        "thinking",
        "system",
        "tools",
        "template_kwargs",
        "reasoning_effort",
        "model_identity",
        "builtin_tools",
        "current_date",
        "reasoning_language",
        "add_generation_prompt",
    ];

    /// The form of a row by its keys.
    pub fn detect(row: &Map<String, Json>) -> Option<Self> {
        let has = |key: &str| row.get(key).is_some_and(|value| !value.is_null());
        // Several may be present; the richer form first.
        if has("messages") {
            Some(Self::Messages)
        } else if has("conversations") {
            Some(Self::ShareGpt)
        } else if has("instruction") && has("output") {
            Some(Self::Alpaca)
        } else if has("prompt") && has("completion") {
            Some(Self::PromptCompletion)
        } else if has("text") {
            Some(Self::Text)
        } else {
            None
        }
    }

    /// The form that a row is read in: the given one, else that of its keys.
    ///
    /// # Errors
    /// [`Error::Field`] when none is given and its keys are those of no form.
    pub fn of(row: &Map<String, Json>, given: Option<Self>) -> Result<Self> {
        given.or_else(|| Self::detect(row)).ok_or_else(|| {
            let keys: Vec<&str> = row.keys().map(String::as_str).take(12).collect();
            let known = "messages, conversations, instruction + output, prompt + completion, or text";
            Error::field("row", format!("no known form: expected {known}; found {}", keys.join(", ")))
        })
    }

    /// Reads a row of this form.
    ///
    /// # Errors
    /// [`Error::Field`] with the first field that does not fit.
    pub fn row(self, number: u64, row: &Map<String, Json>) -> Result<Row> {
        let body = match self {
            Self::Messages => Body::Conversation(Conversation::from_json(row)?),
            Self::ShareGpt => Body::Conversation(sharegpt(row)?),
            Self::Alpaca => Body::Conversation(alpaca(row)?),
            Self::PromptCompletion => Body::Conversation(prompt_completion(row)?),
            Self::Text => Body::Text(text(row, "text")?.to_owned()),
        };
        let reasoning_language = row.get("reasoning_language").and_then(Json::as_str).map(str::to_owned);
        Ok(Row { number, body, reasoning_language })
    }
}

fn sharegpt(row: &Map<String, Json>) -> Result<Conversation> {
    let turns = row.get("conversations").ok_or_else(|| Error::field("conversations", "missing"))?;
    let turns = turns.as_array().ok_or_else(|| Error::wrong("conversations", "a list", turns))?;
    let mut messages = system(row)?;
    for (at, turn) in turns.iter().enumerate() {
        let path = format!("conversations[{at}]");
        let turn = turn.as_object().ok_or_else(|| Error::wrong(&path, "an object", turn))?;
        let in_turn = |error: Error| match error {
            Error::Field { field, reason } => Error::Field { field: format!("{path}.{field}"), reason },
            other => other,
        };
        let value = text(turn, "value").map_err(in_turn)?;
        messages.push(match text(turn, "from").map_err(in_turn)? {
            "system" => Message::text(Role::System, value),
            "developer" => Message::text(Role::Developer, value),
            "human" | "user" => Message::text(Role::User, value),
            "gpt" | "assistant" | "model" => {
                Message::assistant(thinking(turn).map_err(in_turn)?.map(str::to_owned), value)
            }
            "function_call" | "tool_call" => call(value).map_err(in_turn)?,
            "tool" | "observation" | "function_response" => Message::tool(Json::String(value.to_owned())),
            other => {
                let other: String = other.chars().take(40).collect();
                return Err(Error::field(format!("{path}.from"), format!("`{other}` is no known speaker")));
            }
        });
    }
    Conversation { messages, ..head(row)? }.checked()
}

/// A call as ShareGPT files have it: JSON in a text.
fn call(value: &str) -> Result<Message> {
    let bad = |reason: &str| Error::field("value", format!("not a function call: {reason}"));
    let json = json::value(value.as_bytes()).map_err(|reason| bad(&reason))?;
    let name = json.get("name").and_then(Json::as_str).ok_or_else(|| bad("`name` is missing"))?;
    let arguments = json.get("arguments").cloned().unwrap_or_else(|| Json::Object(Map::new()));
    Ok(Message::call(None, name, arguments))
}

fn alpaca(row: &Map<String, Json>) -> Result<Conversation> {
    let mut user = text(row, "instruction")?.to_owned();
    // The original joins the two with a blank line; an empty input is the usual case.
    if let Some(input) = optional(row, "input")?.filter(|input| !input.is_empty()) {
        user.push_str("\n\n");
        user.push_str(input);
    }
    let mut messages = system(row)?;
    messages.push(Message::text(Role::User, user));
    messages.push(Message::assistant(thinking(row)?.map(str::to_owned), text(row, "output")?));
    Conversation { messages, ..head(row)? }.checked()
}

fn prompt_completion(row: &Map<String, Json>) -> Result<Conversation> {
    let lists = (row.get("prompt").and_then(Json::as_array), row.get("completion").and_then(Json::as_array));
    if let (Some(prompt), Some(completion)) = lists {
        let mut joined = row.clone();
        joined.insert("messages".into(), prompt.iter().chain(completion).cloned().collect());
        return Conversation::from_json(&joined);
    }
    let mut messages = system(row)?;
    messages.push(Message::text(Role::User, text(row, "prompt")?));
    messages.push(Message::assistant(thinking(row)?.map(str::to_owned), text(row, "completion")?));
    Conversation { messages, ..head(row)? }.checked()
}

fn system(row: &Map<String, Json>) -> Result<Vec<Message>> {
    let text = optional(row, "system")?.filter(|text| !text.is_empty());
    Ok(text.map(|text| Message::text(Role::System, text)).into_iter().collect())
}

fn thinking(row: &Map<String, Json>) -> Result<Option<&str>> {
    optional(row, "thinking")
}

fn text<'r>(row: &'r Map<String, Json>, key: &str) -> Result<&'r str> {
    optional(row, key)?.ok_or_else(|| Error::field(key, "missing"))
}

fn optional<'r>(row: &'r Map<String, Json>, key: &str) -> Result<Option<&'r str>> {
    match row.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(other) => Err(Error::wrong(key, "a text", other)),
    }
}
