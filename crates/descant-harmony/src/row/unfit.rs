//! Values that no conversation can hold: NaN, which is not JSON though Python writes it, and column types such as
//! timestamps and bytes.
//!
//! Readers put a mark in their place. Where the conversation does not need the value, the mark becomes an ordinary
//! text, so that its key is counted as every other key that is not used; where it does, the row is refused by its path.

use crate::error::{Error, Result};
use crate::row::columns::{COLUMNS, OF_FORMS};
use crate::row::format::Format;
use crate::row::mark::MARK;
use serde_json::{Map, Value as Json};

/// Keys of a message that are not needed, whatever the message says, are all but these.
const OF_MESSAGES: [&str; 17] = [
    "role",
    "from",
    "content",
    "value",
    "thinking",
    "reasoning",
    "reasoning_content",
    "tool_calls",
    "function_call",
    "channel",
    "recipient",
    "content_type",
    "weight",
    "train",
    "loss",
    "refusal",
    "images",
];
const LISTS: [&str; 5] = ["messages", "conversations", "conversation", "prompt", "completion"];

/// Decides about every mark in a row.
///
/// # Errors
/// The conversation needs the value; with its path.
pub(crate) fn settle(row: &mut Map<String, Json>) -> Result<()> {
    let form = Format::detect(row);
    for (key, value) in row.iter_mut() {
        let needed = needs(form, key);
        let in_list = LISTS.contains(&key.as_str());
        match value {
            Json::Array(messages) if in_list && needed => {
                for (at, message) in messages.iter_mut().enumerate() {
                    let path = format!("{key}[{at}]");
                    match message {
                        Json::Object(map) => {
                            for (key, value) in map {
                                let needed = OF_MESSAGES.contains(&key.as_str());
                                walk(value, &format!("{path}.{key}"), needed)?;
                            }
                        }
                        other => walk(other, &path, needed)?,
                    }
                }
            }
            other => walk(other, key, needed)?,
        }
    }
    Ok(())
}

/// Whether a row of a form uses a key.
fn needs(form: Option<Format>, key: &str) -> bool {
    let of_forms: &[&str] = match form {
        Some(Format::Text) => return key == "text",
        Some(Format::Messages) => &["messages"],
        Some(Format::ShareGpt) => &["conversations", "conversation"],
        Some(Format::Alpaca) => &["instruction", "input", "output", "history"],
        Some(Format::PromptCompletion) => &["prompt", "completion"],
        None => return COLUMNS.contains(&key),
    };
    of_forms.contains(&key) || (COLUMNS.contains(&key) && !OF_FORMS.contains(&key))
}

fn walk(json: &mut Json, path: &str, needed: bool) -> Result<()> {
    match json {
        Json::String(text) => match text.strip_prefix(MARK) {
            Some(what) if needed => {
                Err(Error::field(path, format!("{what}, which no conversation can hold")))
            }
            Some(what) => {
                *text = what.to_owned();
                Ok(())
            }
            None => Ok(()),
        },
        Json::Array(items) => items
            .iter_mut()
            .enumerate()
            .try_for_each(|(at, item)| walk(item, &format!("{path}[{at}]"), needed)),
        Json::Object(map) => {
            map.iter_mut().try_for_each(|(key, value)| walk(value, &format!("{path}.{key}"), needed))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::mark::mark;

    #[test]
    fn a_mark_is_refused_where_it_is_needed_and_a_text_elsewhere() {
        let row = |json: serde_json::Value| json.as_object().unwrap().clone();
        let mut good = row(serde_json::json!({
            "score": mark("NaN"), "id": mark("bytes"), "messages": [{"content": "x", "score": mark("NaN")}]
        }));
        settle(&mut good).unwrap();
        assert_eq!(good["score"], "NaN");
        assert_eq!(good["messages"][0]["score"], "NaN");
        for (bad, path) in [
            (serde_json::json!({"text": mark("bytes")}), "text: bytes"),
            (serde_json::json!({"tools": [{"x": mark("NaN")}]}), "tools[0].x: NaN"),
            (
                serde_json::json!({"messages": [{"tool_calls": [{"arguments": {"a": mark("NaN")}}]}]}),
                "messages[0].tool_calls[0].arguments.a: NaN",
            ),
        ] {
            let error = settle(&mut row(bad)).unwrap_err().to_string();
            assert!(error.starts_with(path), "{error}");
        }
    }
}
