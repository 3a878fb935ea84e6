//! Messages, whoever wrote them down: role and content (OpenAI), from and value (ShareGPT), or one message a channel
//! (Harmony).
//!
//! All forms of rows read their messages here, so that a spelling that is taken in one is taken in all.

use crate::error::{Error, Result};
use crate::limits;
use crate::row::channel::Channel;
use crate::row::content::{Content, content, text};
use crate::row::conversation::{Message, Role, ToolCall};
use crate::row::fields::Fields;
use crate::row::ignored::{Ignored, Place};
use crate::row::think;
use crate::row::tool;
use crate::row::weight::{WEIGHT_KEYS, weight};
use serde_json::{Map, Value as Json};

/// Names of what an assistant thought.
pub(crate) const THINKING_KEYS: [&str; 3] = ["thinking", "reasoning", "reasoning_content"];

/// A list of messages.
///
/// # Errors
/// [`Error::Field`] with the path of the first field that does not fit.
pub(crate) fn messages(list: &Json, path: &str, ignored: &mut Ignored) -> Result<Vec<Message>> {
    let list = list.as_array().ok_or_else(|| Error::wrong(path, "a list", list))?;
    if list.len() > limits::MESSAGES {
        return Err(Error::field(path, format!("more than {} messages", limits::MESSAGES)));
    }
    let mut turns = Turns::default();
    for (at, json) in list.iter().enumerate() {
        let path = format!("{path}[{at}]");
        turns.push(message(json, &path, ignored)?, path)?;
    }
    turns.finish()
}

/// A message, and the channel that it states.
struct OnChannel {
    message: Message,
    channel: Option<Channel>,
}

/// Puts a reasoning that is a message of its own into the answer or call that follows it.
#[derive(Default)]
struct Turns {
    messages: Vec<Message>,
    /// What was thought, what it counts for, and where it occurs.
    thought: Option<(String, Option<f32>, String)>,
}

impl Turns {
    fn push(&mut self, read: OnChannel, path: String) -> Result<()> {
        let OnChannel { mut message, channel } = read;
        let is_reply = message.role == Role::Assistant && channel != Some(Channel::Analysis);
        if let Some((text, weight, place)) = self.thought.take() {
            if !is_reply {
                return Err(alone(place));
            }
            if message.thinking.is_some() {
                return Err(Error::field(path, "has reasoning in addition to the preceding analysis"));
            }
            message.thinking = Some(text);
            message.thinking_weight = weight.or(message.weight.map(|_| 1.0));
        }
        match channel {
            Some(Channel::Analysis) => {
                let Some(Json::String(text)) = message.content.filter(|_| message.tool_call.is_none()) else {
                    return Err(Error::field(path, "a tool call cannot be an analysis"));
                };
                self.thought = Some((text, message.weight, path));
            }
            Some(Channel::Commentary) if message.tool_call.is_none() => {
                let reason = "a remark on the commentary channel cannot be rendered by the chat template; put it into \
                              the answer, or leave it out";
                return Err(Error::field(format!("{path}.channel"), reason));
            }
            Some(Channel::Final) if message.tool_call.is_some() => {
                let reason = "a tool call belongs to the commentary channel, not to `final`";
                return Err(Error::field(format!("{path}.channel"), reason));
            }
            _ => self.messages.push(message),
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<Message>> {
        match self.thought {
            Some((_, _, place)) => Err(alone(place)),
            None => Ok(self.messages),
        }
    }
}

fn alone(place: String) -> Error {
    Error::field(place, "an analysis that neither an answer nor a tool call follows")
}

/// Who a message is from, and whether its content is a tool call.
fn speaker(fields: &mut Fields<'_>) -> Result<(Role, bool)> {
    let Some((key, json)) = fields.one_of(&["role", "from"])? else {
        return Err(Error::field(fields.path("role"), "missing"));
    };
    let name = json.as_str().ok_or_else(|| Error::wrong(fields.path(key), "a text", json))?;
    Ok(match name {
        "system" => (Role::System, false),
        "developer" => (Role::Developer, false),
        "user" | "human" => (Role::User, false),
        "assistant" | "gpt" | "model" => (Role::Assistant, false),
        "function_call" | "tool_call" => (Role::Assistant, true),
        "tool" | "function" | "observation" | "function_response" | "tool_response" => (Role::Tool, false),
        other => {
            let name: String = other.chars().take(40).collect();
            let reason = format!("`{name}` is not system, developer, user, assistant or tool");
            return Err(Error::field(fields.path(key), reason));
        }
    })
}

fn message(json: &Json, path: &str, ignored: &mut Ignored) -> Result<OnChannel> {
    let mut fields = Fields::of(json, path)?;
    let (role, content_is_call) = speaker(&mut fields)?;
    let said = fields.one_of(&["content", "value"])?;
    let content_key = if fields.has("from") { "value" } else { "content" };
    let (key, said) = said.map_or((content_key, None), |(key, said)| (key, Some(said)));
    let content_path = fields.path(key);
    let mut tool_call = called(&mut fields, role, ignored)?;
    let (mut said, among_parts) = match said {
        Some(call) if content_is_call => {
            tool_call = Some(tool::call(call, &content_path, ignored)?);
            (None, None)
        }
        Some(json) => {
            let Content { said, thinking } = content(json, role, &content_path)?;
            (Some(said), thinking)
        }
        None => (None, None),
    };
    let channel = channel(&mut fields, role, ignored)?;
    if let Some(name) = addressed(&mut fields, role)?.filter(|_| tool_call.is_none()) {
        let arguments = tool::arguments(&said.take().unwrap_or_default(), &content_path)?;
        let content_type = fields.text("content_type")?.map(str::to_owned);
        tool_call = Some(ToolCall { name, arguments, content_type });
    }
    let thinking = thinking(&mut fields, role)?;
    if among_parts.is_some() && thinking.is_some() && among_parts != thinking {
        return Err(Error::field(content_path, "has reasoning that differs from the message's own"));
    }
    if said.is_none() && tool_call.is_none() {
        return Err(Error::field(content_path, "missing"));
    }
    let mut thinking = thinking.or(among_parts);
    match said.take() {
        Some(Json::String(text)) if role == Role::Assistant && channel != Some(Channel::Analysis) => {
            let answer = think::answer(text, thinking.take(), tool_call.is_some(), &content_path, ignored)?;
            (said, thinking) = (Some(answer.said.into()), answer.thinking);
        }
        other => said = other,
    }
    // An empty text beside a call is how OpenAI's interfaces say that there is none.
    let content = said.filter(|said| tool_call.is_none() || said.as_str() != Some(""));
    let weight = weight(&mut fields, &WEIGHT_KEYS)?;
    refuse_what_is_not_text(&mut fields)?;
    let mut extra = Map::new();
    for (key, value) in fields.left() {
        ignored.add(Place::Message, key);
        extra.insert(key.clone(), value.clone());
    }
    let message = Message { role, content, thinking, tool_call, weight, thinking_weight: None, extra };
    Ok(OnChannel { message, channel })
}

/// The tool call beside the content.
fn called(fields: &mut Fields<'_>, role: Role, ignored: &mut Ignored) -> Result<Option<ToolCall>> {
    let several = fields.get("tool_calls");
    let several =
        several.map(|calls| tool::calls(calls, &fields.path("tool_calls"), ignored)).transpose()?.flatten();
    // The older spelling.
    let one =
        fields.get("function_call").filter(|call| call.as_str().is_none_or(|text| !text.trim().is_empty()));
    let one = one.map(|call| tool::call(call, &fields.path("function_call"), ignored)).transpose()?;
    if several.is_some() && one.is_some() && several != one {
        return Err(fields.differs("tool_calls", "function_call"));
    }
    let call = several.or(one);
    if call.is_some() && role != Role::Assistant {
        return Err(Error::field(fields.path("tool_calls"), format!("a {role} message calls no tool")));
    }
    Ok(call)
}

/// The function that a message of Harmony is addressed to.
fn addressed(fields: &mut Fields<'_>, role: Role) -> Result<Option<String>> {
    let to = fields.text("recipient")?.filter(|_| role == Role::Assistant);
    let to = to.filter(|to| !["", "all", "user", "assistant"].contains(to));
    Ok(to.map(|to| to.strip_prefix("functions.").unwrap_or(to).to_owned()))
}

fn channel(fields: &mut Fields<'_>, role: Role, ignored: &mut Ignored) -> Result<Option<Channel>> {
    let Some(name) = fields.text("channel")?.filter(|name| !name.is_empty()) else { return Ok(None) };
    if role != Role::Assistant {
        // A tool answers on the commentary channel, as the template writes it; others have none.
        if (role, name) != (Role::Tool, "commentary") {
            ignored.add(Place::Message, "channel");
        }
        return Ok(None);
    }
    let channel = Channel::parse(name).ok_or_else(|| {
        let name: String = name.chars().take(40).collect();
        Error::field(fields.path("channel"), format!("`{name}` is not analysis, commentary or final"))
    });
    channel.map(Some)
}

fn thinking(fields: &mut Fields<'_>, role: Role) -> Result<Option<String>> {
    let mut found: Option<(&str, String)> = None;
    for key in THINKING_KEYS {
        let Some(json) = fields.get(key) else { continue };
        let path = fields.path(key);
        let text = text(json, &path)?;
        if role != Role::Assistant {
            // Column formats fill other roles with empty texts; a text that says something would be lost.
            if text.is_empty() {
                continue;
            }
            return Err(Error::field(path, format!("a {role} message has no reasoning")));
        }
        match found {
            Some((first, other)) if other != text => return Err(fields.differs(first, key)),
            _ => found = Some((key, text)),
        }
    }
    Ok(found.map(|(_, text)| text))
}

/// What would be lost because the model reads text alone.
pub(crate) fn refuse_what_is_not_text(fields: &mut Fields<'_>) -> Result<()> {
    for key in ["images", "image", "videos", "audios", "audio", "refusal"] {
        let Some(value) = fields.get(key) else { continue };
        let empty = match value {
            Json::String(text) => text.is_empty(),
            Json::Array(items) => items.is_empty(),
            _ => false,
        };
        if !empty {
            let reason = match key {
                "refusal" => "refusals are not supported; write the text as the message's content",
                _ => {
                    "gpt-oss reads and writes text alone; leave the row out, or put a description into the text"
                }
            };
            return Err(Error::field(fields.path(key), reason));
        }
    }
    Ok(())
}
