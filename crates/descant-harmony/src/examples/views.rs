//! What of a conversation is trained together: views.
//!
//! A model is served one turn at a time, and the template shows it older turns without their reasoning. So the honest
//! training example for turn k is the prompt that the server would send for it, followed by turn k. A conversation
//! with several turns gives several such views. Trained as one row instead, every turn but the last would be taught
//! without its reasoning, and the reasoning before a tool call not at all.

use crate::error::{Error, Result};
use crate::examples::render::{RenderOptions, Renderer, Segment};
use crate::examples::rendered::{Cut, Rendered};
use crate::examples::weights::weights;
use crate::messages::parse::{Closing, MessageSpan};
use crate::row::body::Body;
use crate::row::conversation::{Conversation, Role};
use crate::tokens::tokenizer::TextEncoder;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// What the prompt for a reply ends with.
const OPENING: &str = "<|start|>assistant";

/// How a conversation becomes training views.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ViewPolicy {
    /// One view for each assistant message: the prompt as it would be served, then the message, of which alone tokens
    /// are trained.
    #[default]
    AllTurns,
    /// The last of those views alone.
    LastTurn,
    /// The whole conversation as the template renders it, once; every assistant message in it may be trained.
    WholeRow,
}

/// One training example before masking.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Its text, ids and messages.
    pub rendered: Rendered,
    /// Nothing before this token is trained.
    pub trained_from: usize,
    /// Index of the assistant message in the conversation; `None` for a whole row.
    pub message: Option<usize>,
}

impl Renderer {
    /// The views of a row. Text that is rendered already is one whole row.
    ///
    /// # Errors
    /// As [`Renderer::render`]; [`Error::NoAssistant`] when a conversation holds nothing to learn.
    pub fn views(&self, body: &Body, options: &RenderOptions, policy: ViewPolicy) -> Result<Vec<View>> {
        let whole = |rendered| vec![View { rendered, trained_from: 0, message: None }];
        let conversation = match body {
            Body::Text(text) => return self.rendered_text(text).map(whole),
            Body::Conversation(conversation) => conversation,
        };
        let assistants = || {
            let all = conversation.messages.iter().enumerate();
            all.filter(|(_, message)| message.role == Role::Assistant)
        };
        if assistants().next().is_none() {
            return Err(Error::NoAssistant);
        }
        let assistants: Vec<usize> =
            assistants().filter(|(_, message)| message.counts()).map(|(at, _)| at).collect();
        let Some(last) = assistants.last() else {
            return Err(Error::field(
                "messages",
                "every assistant message has weight 0, so nothing is trained",
            ));
        };
        let options = RenderOptions { add_generation_prompt: false, ..options.clone() };
        match policy {
            ViewPolicy::WholeRow => self.render(conversation, &options).map(whole),
            ViewPolicy::LastTurn => Ok(vec![self.turn(conversation, *last, &options)?]),
            ViewPolicy::AllTurns => {
                assistants.iter().map(|at| self.turn(conversation, *at, &options)).collect()
            }
        }
    }

    /// The view of one assistant message.
    fn turn(&self, conversation: &Conversation, message: usize, options: &RenderOptions) -> Result<View> {
        let mut view = self.unweighted(conversation, message, options)?;
        view.rendered.weights = weights(&conversation.messages[..=message], &view.rendered.messages)?;
        Ok(view)
    }

    fn unweighted(
        &self,
        conversation: &Conversation,
        message: usize,
        options: &RenderOptions,
    ) -> Result<View> {
        if message == 0 {
            return Err(Error::field(
                "messages[0].role",
                "an assistant message with nothing before it has no prompt",
            ));
        }
        let date = conversation.date.unwrap_or(options.date);
        let mut input = options.fill(conversation.input(message, true));
        let (prompt_text, prompt) = self.segments(&input, date, options.exact)?;
        input.add_generation_prompt = false;
        if let Json::Array(messages) = &mut input.messages {
            messages.push(conversation.messages[message].to_json());
        }
        let (text, full) = self.segments(&input, date, options.exact)?;
        let text = match self.continued(message, &prompt, text, &full, options)? {
            Ok(view) => return Ok(view),
            Err(text) => text,
        };
        // The template shows reasoning in the prompt that it drops once this message is an answer. The server would
        // send that prompt, so the message's own tokens are put behind it.
        let whole = self.parsed(text, self.encode(&full)?, false)?;
        let ambiguous = Error::AmbiguousTurn { message };
        let before = &conversation.messages[message - 1];
        let own_reply = before.role != Role::Assistant || before.tool_call.is_some();
        let opening = self.tokenizer().encode_rendered(OPENING)?;
        let Some(first) = last_reply(&whole.messages).filter(|_| own_reply) else { return Err(ambiguous) };
        let mut joined = self.encode(&prompt)?;
        if !whole.ids[first.start..].starts_with(&opening) || !joined.ids.ends_with(&opening) {
            return Err(ambiguous);
        }
        let trained_from = joined.ids.len();
        let (reply, byte) = (first.start + opening.len(), whole.byte(first.start) + OPENING.len());
        let behind = whole.cuts.iter().filter(|cut| cut.token >= reply);
        joined.cuts.extend(behind.map(|cut| Cut {
            token: cut.token - reply + trained_from,
            byte: cut.byte - byte + prompt_text.len(),
        }));
        joined.ids.extend(&whole.ids[reply..]);
        let text = prompt_text + whole.text.get(byte..).unwrap_or_default();
        let rendered = self.parsed(text, joined, options.exact)?;
        Ok(View { rendered, trained_from, message: Some(message) })
    }

    /// The view of a message whose prompt is how its full text begins, which is the rule; else the text back.
    fn continued(
        &self,
        message: usize,
        prompt: &[Segment],
        text: String,
        full: &[Segment],
        options: &RenderOptions,
    ) -> Result<Result<View, String>> {
        let Some((last, before)) = prompt.split_last() else { return Ok(Err(text)) };
        if full.len() <= before.len() || full[..before.len()] != *before {
            return Ok(Err(text));
        }
        let encoded = self.encode(full)?;
        let opening = self.encode(std::slice::from_ref(last))?.ids;
        let next = encoded.cuts[before.len()].token;
        if !encoded.ids[next..].starts_with(&opening) {
            return Ok(Err(text));
        }
        let rendered = self.parsed(text, encoded, options.exact)?;
        Ok(Ok(View { rendered, trained_from: next + opening.len(), message: Some(message) }))
    }
}

/// The first message of the last run that a model would generate at once.
fn last_reply(messages: &[MessageSpan]) -> Option<&MessageSpan> {
    let mut first = messages.len().checked_sub(1)?;
    let is_assistant = |at: usize| messages[at].header.role == Role::Assistant;
    if !is_assistant(first) {
        return None;
    }
    while first > 0 && is_assistant(first - 1) && messages[first - 1].closed_by == Closing::End {
        first -= 1;
    }
    Some(&messages[first])
}
