//! From a row's JSON to a [`Conversation`], with the field's path in every refusal.
//!
//! Keys with null are dropped first: column formats fill every struct with them, and a template takes a null that is
//! there for a value. Tool arguments and schemas keep their nulls, which mean something.

use crate::error::{Error, Result};
use crate::limits;
use crate::row::conversation::{Conversation, Message, Role, ToolCall};
use crate::row::json;
use serde_json::{Map, Value as Json};

/// Keys of a row that become variables of the template.
const KWARG_COLUMNS: [&str; 3] = ["reasoning_effort", "model_identity", "builtin_tools"];
/// Other names of `thinking`, as servers spell it.
const THINKING_KEYS: [&str; 3] = ["thinking", "reasoning", "reasoning_content"];

impl Conversation {
    /// Reads a row with `messages`, and optionally `tools`, `template_kwargs`, `reasoning_effort`, `model_identity`,
    /// `builtin_tools` and `current_date`. Other keys of the row are not looked at.
    ///
    /// # Errors
    /// [`Error::Field`] with the path of the first field that does not fit.
    pub fn from_json(row: &Map<String, Json>) -> Result<Self> {
        let messages = row.get("messages").ok_or_else(|| Error::field("messages", "missing"))?;
        let messages = parsed_if_text(messages, "messages")?;
        let list = messages.as_array().ok_or_else(|| Error::wrong("messages", "a list", &messages))?;
        if list.len() > limits::MESSAGES {
            return Err(Error::field("messages", format!("more than {} messages", limits::MESSAGES)));
        }
        let messages = list
            .iter()
            .enumerate()
            .map(|(at, json)| message(json, &format!("messages[{at}]")))
            .collect::<Result<Vec<_>>>()?;
        Self { messages, ..head(row)? }.checked()
    }

    /// Checks what the template would lose or misplace in silence.
    ///
    /// # Errors
    /// [`Error::Field`] for no message at all, and for a system or developer message that is not the first.
    pub fn checked(self) -> Result<Self> {
        if self.messages.is_empty() {
            return Err(Error::field("messages", "empty"));
        }
        let stray =
            self.messages.iter().skip(1).position(|m| matches!(m.role, Role::System | Role::Developer));
        if let Some(at) = stray {
            let role = self.messages[at + 1].role;
            let reason = format!("a {role} message that is not the first would be dropped by the template");
            return Err(Error::field(format!("messages[{}].role", at + 1), reason));
        }
        Ok(self)
    }
}

/// Everything of a row that stands beside its messages, whatever form those have.
pub(crate) fn head(row: &Map<String, Json>) -> Result<Conversation> {
    let mut head = Conversation::default();
    if let Some(tools) = present(row, "tools") {
        let tools = parsed_if_text(tools, "tools")?;
        head.tools = match tools {
            Json::Array(tools) => tools,
            other => return Err(Error::wrong("tools", "a list", &other)),
        };
        for (at, tool) in head.tools.iter().enumerate() {
            if !tool.is_object() {
                return Err(Error::wrong(format!("tools[{at}]"), "an object", tool));
            }
        }
    }
    if let Some(kwargs) = present(row, "template_kwargs") {
        let kwargs =
            kwargs.as_object().ok_or_else(|| Error::wrong("template_kwargs", "an object", kwargs))?;
        head.template_kwargs
            .extend(kwargs.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())));
    }
    for key in KWARG_COLUMNS {
        if let Some(value) = present(row, key) {
            head.template_kwargs.entry(key).or_insert_with(|| value.clone());
        }
    }
    for key in ["reasoning_effort", "model_identity"] {
        if let Some(value) = head.template_kwargs.get(key)
            && !value.is_string()
        {
            return Err(Error::wrong(key, "a text", value));
        }
    }
    if let Some(date) = present(row, "current_date") {
        let text = date.as_str().ok_or_else(|| Error::wrong("current_date", "a text", date))?;
        head.date =
            Some(text.parse().map_err(|error: Error| Error::field("current_date", error.to_string()))?);
    }
    Ok(head)
}

fn message(json: &Json, path: &str) -> Result<Message> {
    let map = json.as_object().ok_or_else(|| Error::wrong(path, "an object", json))?;
    let mut map: Map<String, Json> = map
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let role = role(map.shift_remove("role").as_ref(), path)?;
    let content = map.shift_remove("content").map(|json| content(json, role, path)).transpose()?;
    let thinking = thinking(&mut map, role, path)?;
    let tool_call = match map.shift_remove("tool_calls") {
        Some(calls) => tool_call(&calls, role, path)?,
        None => None,
    };
    if content.is_none() && tool_call.is_none() {
        return Err(Error::field(format!("{path}.content"), "missing"));
    }
    Ok(Message { role, content, thinking, tool_call, extra: map })
}

fn role(json: Option<&Json>, path: &str) -> Result<Role> {
    let path = format!("{path}.role");
    let json = json.ok_or_else(|| Error::field(path.as_str(), "missing"))?;
    match json.as_str() {
        Some("system") => Ok(Role::System),
        Some("developer") => Ok(Role::Developer),
        Some("user") => Ok(Role::User),
        Some("assistant") => Ok(Role::Assistant),
        Some("tool") => Ok(Role::Tool),
        Some(other) => {
            let name: String = other.chars().take(40).collect();
            let reason = format!("`{name}` is not system, developer, user, assistant or tool");
            Err(Error::field(path, reason))
        }
        None => Err(Error::wrong(&path, "a text", json)),
    }
}

/// A text; a list of text parts, joined; and for a tool, any JSON.
fn content(json: Json, role: Role, path: &str) -> Result<Json> {
    match json {
        Json::String(_) => Ok(json),
        other if role == Role::Tool => Ok(other),
        Json::Array(parts) => {
            let mut text = String::new();
            for (at, part) in parts.iter().enumerate() {
                let path = format!("{path}.content[{at}]");
                let kind = part.get("type").and_then(Json::as_str).unwrap_or("text");
                match part.get("text").and_then(Json::as_str) {
                    Some(part) if kind == "text" => text.push_str(part),
                    _ => return Err(Error::field(path, format!("a part of type `{kind}` is not text"))),
                }
            }
            Ok(Json::String(text))
        }
        other => Err(Error::wrong(format!("{path}.content"), "a text", &other)),
    }
}

fn thinking(map: &mut Map<String, Json>, role: Role, path: &str) -> Result<Option<String>> {
    let mut found: Option<String> = None;
    for key in THINKING_KEYS {
        let Some(json) = map.shift_remove(key) else { continue };
        let path = format!("{path}.{key}");
        let text = json.as_str().ok_or_else(|| Error::wrong(&path, "a text", &json))?;
        if role != Role::Assistant {
            // Column formats fill other roles with empty texts; a text that says something would be lost.
            if text.is_empty() {
                continue;
            }
            return Err(Error::field(path, format!("a {role} message has no reasoning")));
        }
        if found.as_deref().is_some_and(|other| other != text) {
            return Err(Error::field(path, "differs from another field with the same meaning"));
        }
        found = Some(text.to_owned());
    }
    Ok(found)
}

fn tool_call(json: &Json, role: Role, path: &str) -> Result<Option<ToolCall>> {
    let path = format!("{path}.tool_calls");
    let calls = parsed_if_text(json, &path)?;
    let calls = calls.as_array().ok_or_else(|| Error::wrong(&path, "a list", &calls))?;
    let call = match calls.as_slice() {
        [] => return Ok(None),
        [call] => call,
        more => {
            let reason = format!("{} calls in one message; the template renders only the first", more.len());
            return Err(Error::field(path, reason));
        }
    };
    if role != Role::Assistant {
        return Err(Error::field(path, format!("a {role} message calls no tool")));
    }
    let path = format!("{path}[0]");
    let call = call.get("function").filter(|function| !function.is_null()).unwrap_or(call);
    let name = call.get("name").and_then(Json::as_str).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Error::field(format!("{path}.name"), "missing"))?.to_owned();
    let arguments = match call.get("arguments") {
        None | Some(Json::Null) => Json::Object(Map::new()),
        // OpenAI's API gives the arguments as JSON in a text; the template would quote that text once more.
        Some(Json::String(text)) => json::value(text.as_bytes()).map_err(|reason| {
            Error::field(format!("{path}.arguments"), format!("a text that is not JSON: {reason}"))
        })?,
        Some(other) => other.clone(),
    };
    let content_type = call.get("content_type").and_then(Json::as_str).map(str::to_owned);
    Ok(Some(ToolCall { name, arguments, content_type }))
}

/// A list that a column format had to store as text.
fn parsed_if_text(json: &Json, path: &str) -> Result<Json> {
    match json.as_str() {
        Some(text) => json::value(text.as_bytes())
            .map_err(|reason| Error::field(path, format!("a text that is not JSON: {reason}"))),
        None => Ok(json.clone()),
    }
}

fn present<'r>(row: &'r Map<String, Json>, key: &str) -> Option<&'r Json> {
    row.get(key).filter(|value| !value.is_null())
}
