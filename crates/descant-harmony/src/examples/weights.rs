//! Which weight of a conversation belongs to which message in the ids.
//!
//! The template writes the messages of each role in their order, so they are matched by counting. A template that
//! writes more or fewer cannot be matched, which is an error and not a guess.

use crate::error::{Error, Result};
use crate::messages::parse::MessageSpan;
use crate::row::channel::Channel;
use crate::row::conversation::{Message, Role};

/// What the tokens of each of `spans` count for; empty where no message states a weight.
///
/// # Errors
/// Weights are stated, and the spans are not those of the messages.
pub(crate) fn weights(messages: &[Message], spans: &[MessageSpan]) -> Result<Vec<f32>> {
    let stated = |message: &Message| message.weight.or(message.thinking_weight).is_some();
    if !messages.iter().any(stated) {
        return Ok(Vec::new());
    }
    let of = |role: Role| messages.iter().filter(move |message| message.role == role);
    let (mut users, mut tools, mut assistants) =
        (of(Role::User), of(Role::Tool), of(Role::Assistant).peekable());
    let instructions = of(Role::System).chain(of(Role::Developer)).next();
    let mut weights = Vec::with_capacity(spans.len());
    for span in spans {
        let message = match (span.header.role, span.header.channel) {
            (Role::System, _) => None,
            (Role::Developer, _) => instructions,
            (Role::User, _) => Some(users.next().ok_or_else(unlike)?),
            (Role::Tool, _) => Some(tools.next().ok_or_else(unlike)?),
            (Role::Assistant, Some(Channel::Analysis)) => {
                let message = assistants.peek().ok_or_else(unlike)?;
                weights.push(message.thinking_weight.or(message.weight).unwrap_or(1.0));
                continue;
            }
            (Role::Assistant, _) => Some(assistants.next().ok_or_else(unlike)?),
        };
        weights.push(message.and_then(|message| message.weight).unwrap_or(1.0));
    }
    let left = users.count() + tools.count() + assistants.count();
    if left > 0 { Err(unlike()) } else { Ok(weights) }
}

fn unlike() -> Error {
    let reason = "state weights, but the chat template does not write each of them once and in order";
    Error::field("messages", reason)
}
