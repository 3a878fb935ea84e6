//! What a message says, as text, however it is packed.

use crate::error::{Error, Result};
use crate::row::conversation::Role;
use serde_json::Value as Json;

/// A message's content taken apart.
pub(crate) struct Content {
    /// What is said: a text, and of a tool any JSON.
    pub(crate) said: Json,
    /// Reasoning among the parts.
    pub(crate) thinking: Option<String>,
}

/// A text; a list of text parts, joined; of a tool any JSON. Parts of type `thinking` are an assistant's reasoning.
///
/// # Errors
/// Anything else, with its path.
pub(crate) fn content(json: &Json, role: Role, path: &str) -> Result<Content> {
    match json {
        Json::String(text) => Ok(Content { said: text.as_str().into(), thinking: None }),
        Json::Array(parts) if role != Role::Tool || all_text(parts) => {
            let (mut said, mut thinking) = (String::new(), None::<String>);
            for (at, part) in parts.iter().enumerate() {
                let kind = part.get("type").and_then(Json::as_str).unwrap_or("text");
                let reasoning = role == Role::Assistant && ["thinking", "reasoning"].contains(&kind);
                let text = part.get("text").or_else(|| part.get(kind).filter(|_| reasoning));
                match text.and_then(Json::as_str).or_else(|| part.as_str()) {
                    Some(text) if reasoning => thinking.get_or_insert_default().push_str(text),
                    Some(text) if ["text", "input_text", "output_text"].contains(&kind) => {
                        said.push_str(text);
                    }
                    _ => {
                        let reason = format!("a part of type `{kind}` is not text");
                        return Err(Error::field(format!("{path}[{at}]"), reason));
                    }
                }
            }
            Ok(Content { said: said.into(), thinking })
        }
        other if role == Role::Tool => Ok(Content { said: other.clone(), thinking: None }),
        other => Err(Error::wrong(path, "a text", other)),
    }
}

/// Whether a tool's answer is a list of text parts, and not a list of its own.
fn all_text(parts: &[Json]) -> bool {
    let is_text = |part: &Json| {
        part.get("text").is_some_and(Json::is_string)
            && part.get("type").and_then(Json::as_str) == Some("text")
    };
    !parts.is_empty() && parts.iter().all(is_text)
}

/// A text, or text parts.
///
/// # Errors
/// Anything else, with its path.
pub(crate) fn text(json: &Json, path: &str) -> Result<String> {
    match content(json, Role::User, path)?.said {
        Json::String(text) => Ok(text),
        other => Err(Error::wrong(path, "a text", &other)),
    }
}
