//! A rendered conversation: text, ids and messages, each of which says where it is in the others.

use crate::error::ParseError;
use crate::messages::parse::MessageSpan;

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// The text, as the template wrote it.
    pub text: String,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Every message and where it is in `ids`; in ids that are `broken`, those that the markers alone make.
    pub messages: Vec<MessageSpan>,
    /// Index of the `<|start|>` of the generation prompt, if there is one.
    pub prompt: Option<usize>,
    /// With exact rendering alone: why the ids are not Harmony, when content broke their structure.
    pub broken: Option<ParseError>,
    /// What the tokens of each message count for in the loss; empty where the conversation states no weight.
    pub weights: Vec<f32>,
    /// Where the control tokens and the texts between them begin.
    pub(crate) cuts: Vec<Cut>,
}

/// A place in ids and in their text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) token: usize,
    pub(crate) byte: usize,
}

/// Ids, and where what they were made of begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) ids: Vec<u32>,
    pub(crate) cuts: Vec<Cut>,
}

impl Rendered {
    /// The content of one of its messages.
    pub fn content(&self, message: &MessageSpan) -> &str {
        let tokens = message.content();
        self.text.get(self.byte(tokens.start)..self.byte(tokens.end)).unwrap_or_default()
    }

    /// The messages that end within the first `tokens`, and nothing after them.
    #[must_use]
    pub fn up_to(mut self, tokens: usize) -> Self {
        self.messages.retain(|message| message.end <= tokens);
        self.weights.truncate(self.messages.len());
        let end = self.messages.last().map_or(0, |message| message.end);
        let byte = self.byte(end);
        self.text.truncate(byte);
        self.ids.truncate(end);
        self.cuts.retain(|cut| cut.token < end);
        Self { prompt: None, ..self }
    }

    /// Where in the text a token begins that is a control token or follows one.
    pub(crate) fn byte(&self, token: usize) -> usize {
        let at = self.cuts.partition_point(|cut| cut.token < token);
        self.cuts.get(at).map_or(self.text.len(), |cut| cut.byte)
    }
}
