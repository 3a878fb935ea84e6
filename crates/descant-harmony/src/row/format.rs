//! The forms in which conversations are published, and how each becomes a [`Conversation`].
//!
//! | form | a row |
//! | --- | --- |
//! | `messages` | `{"messages": [{"role", "content", "thinking", "tool_calls"}], "tools", ...}` (Multilingual-Thinking, OpenAI) |
//! | `sharegpt` | `{"conversations": [{"from": "human", "value": "..."}], "system"}` |
//! | `alpaca` | `{"instruction", "input", "output", "history", "system"}` |
//! | `prompt_completion` | `{"prompt", "completion"}`, texts or lists of messages |
//! | `text` | `{"text": "<\|start\|>system..."}`, rendered already |
//!
//! The form of a file is that of its first good row; a row in another form is a bad row, not a guess. A form says where
//! the messages are; `message.rs` reads them, and `head.rs` what is beside them, the same for all.

use crate::error::{Error, Result};
use crate::row::body::{Body, Row};
use crate::row::content;
use crate::row::conversation::{Conversation, Message, Role};
use crate::row::fields::{Fields, parsed_if_text};
use crate::row::head::head;
use crate::row::ignored::{Ignored, Place};
use crate::row::message::{THINKING_KEYS, messages};
use crate::row::think;
use crate::row::weight::{WEIGHT_KEYS, weight};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::fmt;
use std::str::FromStr;

/// The form of a data set's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
            Error::field("format", format!("`{text}` is not one of {known}"))
        })
    }
}

impl Format {
    /// Every form.
    pub const ALL: [Self; 5] =
        [Self::Messages, Self::ShareGpt, Self::Alpaca, Self::PromptCompletion, Self::Text];

    /// The form of a row by its keys.
    pub fn detect(row: &Map<String, Json>) -> Option<Self> {
        let has = |key: &str| row.get(key).is_some_and(|value| !value.is_null());
        // Several may be present; the richer form first.
        if has("messages") {
            Some(Self::Messages)
        } else if has("conversations") || has("conversation") {
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
            if row.contains_key("chosen") && row.contains_key("rejected") {
                let reason = "chosen and rejected answers (preferences) are not trained; write the chosen one as completion";
                return Error::field("row", reason);
            }
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
        let mut fields = Fields::of_row(row);
        let mut ignored = Ignored::default();
        let body = match self {
            Self::Text => Body::Text(harmony_text(&mut fields)?),
            form => Body::Conversation(form.conversation(&mut fields, &mut ignored)?),
        };
        let reasoning_language = fields.get("reasoning_language").and_then(Json::as_str).map(str::to_owned);
        for (key, _) in fields.left() {
            ignored.add(Place::Row, key);
        }
        Ok(Row { number, body, reasoning_language, ignored })
    }

    /// The conversation of a row of this form, which is not text.
    pub(crate) fn conversation(self, fields: &mut Fields<'_>, ignored: &mut Ignored) -> Result<Conversation> {
        let mut messages = match self {
            Self::ShareGpt => listed(fields, &["conversations", "conversation"], ignored)?,
            Self::Alpaca => alpaca(fields, ignored)?,
            Self::PromptCompletion => prompt_completion(fields, ignored)?,
            _ => listed(fields, &["messages"], ignored)?,
        };
        if matches!(self, Self::Messages | Self::ShareGpt) {
            weigh(&mut messages, fields)?;
        }
        if let Some(system) = system(fields)? {
            match messages.first() {
                Some(first) if matches!(first.role, Role::System | Role::Developer) => {
                    if first.content.as_ref().and_then(Json::as_str) != Some(&system) {
                        let reason =
                            format!("differs from the {} message that the row begins with", first.role);
                        return Err(Error::field("system", reason));
                    }
                }
                _ => messages.insert(0, Message::text(Role::System, system)),
            }
        }
        Conversation { messages, ..head(fields, ignored)? }.checked()
    }
}

/// What a whole row counts for, where it says so beside its messages: each of them as much more or less. A `loss`
/// beside messages is what somebody measured.
fn weigh(messages: &mut [Message], fields: &mut Fields<'_>) -> Result<()> {
    let Some(of_row) = weight(fields, &["weight", "train"])? else { return Ok(()) };
    for message in messages.iter_mut().filter(|message| message.role == Role::Assistant) {
        message.weight = Some(message.weight.unwrap_or(1.0) * of_row);
        message.thinking_weight = message.thinking_weight.map(|weight| weight * of_row);
    }
    Ok(())
}

/// A list of messages under one of these keys.
fn listed(fields: &mut Fields<'_>, keys: &[&'static str], ignored: &mut Ignored) -> Result<Vec<Message>> {
    let Some((key, list)) = fields.one_of(keys)? else { return Err(Error::field(keys[0], "missing")) };
    messages(&*parsed_if_text(list, key)?, key, ignored)
}

fn alpaca(fields: &mut Fields<'_>, ignored: &mut Ignored) -> Result<Vec<Message>> {
    let mut user = said(fields, "instruction")?.ok_or_else(|| Error::field("instruction", "missing"))?;
    // The original joins the two with a blank line; an empty input is the usual case.
    if let Some(input) = said(fields, "input")?.filter(|input| !input.is_empty()) {
        user.push_str("\n\n");
        user.push_str(&input);
    }
    let mut messages = history(fields, ignored)?;
    messages.push(Message::text(Role::User, user));
    messages.push(answer(fields, "output", ignored)?);
    Ok(messages)
}

/// Earlier turns: pairs of what was asked and answered.
fn history(fields: &mut Fields<'_>, ignored: &mut Ignored) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    let Some(history) = fields.get("history") else { return Ok(messages) };
    let turns = parsed_if_text(history, "history")?;
    let turns = turns.as_array().ok_or_else(|| Error::wrong("history", "a list", &turns))?;
    for (at, turn) in turns.iter().enumerate() {
        let pair = turn.as_array().map(Vec::as_slice);
        let Some([Json::String(asked), Json::String(answered)]) = pair else {
            return Err(Error::field(format!("history[{at}]"), "expected a list of two texts"));
        };
        messages.push(Message::text(Role::User, asked.as_str()));
        let path = format!("history[{at}][1]");
        let answer = think::answer(answered.clone(), None, false, &path, ignored)?;
        messages.push(Message::assistant(answer.thinking, answer.said));
    }
    Ok(messages)
}

/// A prompt, of which nothing is trained, and its completion; each a text or a list of messages.
fn prompt_completion(fields: &mut Fields<'_>, ignored: &mut Ignored) -> Result<Vec<Message>> {
    let mut messages = match fields.get("prompt") {
        None => return Err(Error::field("prompt", "missing")),
        Some(Json::Array(_)) => listed(fields, &["prompt"], ignored)?,
        Some(_) => vec![Message::text(Role::User, said(fields, "prompt")?.unwrap_or_default())],
    };
    for message in messages.iter_mut().filter(|message| message.role == Role::Assistant) {
        (message.weight, message.thinking_weight) = (Some(0.0), None);
    }
    if fields.get("label").is_some_and(|label| label == false) {
        let reason =
            "false marks a completion that is not wanted (KTO), which cannot be trained; leave such rows out";
        return Err(Error::field("label", reason));
    }
    match fields.get("completion") {
        None => return Err(Error::field("completion", "missing")),
        Some(Json::Array(_)) => messages.extend(listed(fields, &["completion"], ignored)?),
        Some(_) => messages.push(answer(fields, "completion", ignored)?),
    }
    Ok(messages)
}

/// The only assistant message of a row, its reasoning beside it.
fn answer(fields: &mut Fields<'_>, key: &'static str, ignored: &mut Ignored) -> Result<Message> {
    let text = said(fields, key)?.ok_or_else(|| Error::field(key, "missing"))?;
    let thinking = match fields.one_of(&THINKING_KEYS)? {
        Some((key, json)) => Some(content::text(json, key)?),
        None => None,
    };
    let answer = think::answer(text, thinking, false, key, ignored)?;
    let message = Message::assistant(answer.thinking, answer.said);
    Ok(Message { weight: weight(fields, &WEIGHT_KEYS)?, ..message })
}

/// The developer's instructions beside the messages, under either name.
fn system(fields: &mut Fields<'_>) -> Result<Option<String>> {
    let found = fields.one_of(&["system", "system_prompt"])?;
    let text = found.map(|(key, json)| content::text(json, key)).transpose()?;
    Ok(text.filter(|text| !text.is_empty()))
}

/// A text, or text parts.
fn said(fields: &mut Fields<'_>, key: &'static str) -> Result<Option<String>> {
    fields.get(key).map(|json| content::text(json, key)).transpose()
}

/// Rendered text. White space after the last message is what writing lines of text leaves behind.
fn harmony_text(fields: &mut Fields<'_>) -> Result<String> {
    let text = fields.text("text")?.ok_or_else(|| Error::field("text", "missing"))?;
    let closed = text.trim_end();
    let ends = ["<|return|>", "<|end|>", "<|call|>"].iter().any(|end| closed.ends_with(end));
    Ok(if ends { closed } else { text }.to_owned())
}

impl Conversation {
    /// Reads a row in the form `messages`, with what may be beside them. Keys that are not used are passed over;
    /// [`Format::row`] counts them.
    ///
    /// # Errors
    /// [`Error::Field`] with the path of the first field that does not fit.
    pub fn from_json(row: &Map<String, Json>) -> Result<Self> {
        Format::Messages.conversation(&mut Fields::of_row(row), &mut Ignored::default())
    }
}
