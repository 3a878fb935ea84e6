//! A reply as it comes: which message begins, its text without broken characters, how it ends.

use crate::error::ParseError;
use crate::messages::header::Header;
use crate::messages::parse::{Closing, StreamParser};
use crate::tokens::stream::TextStream;
use crate::tokens::tokenizer::Tokenizer;

/// What an id brought.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplyPart {
    /// A message began.
    Open(Header),
    /// Text of the message that was begun last; after [`Broken`](Self::Broken), of no message.
    Text(String),
    /// The message ended.
    Close(Closing),
    /// The reply is not Harmony from here on: what follows is text as it is, control tokens included.
    Broken(ParseError),
}

/// Reads the ids of one reply, after the prompt's `<|start|>assistant`.
#[derive(Clone, Debug)]
pub struct ReplyStream<'t> {
    parser: StreamParser<'t>,
    text: TextStream<'t>,
    broken: bool,
}

impl<'t> ReplyStream<'t> {
    /// A reply that begins.
    pub fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { parser: StreamParser::reply(tokenizer), text: TextStream::new(tokenizer), broken: false }
    }

    /// Takes an id; what it brought, in order.
    pub fn push(&mut self, id: u32) -> Vec<ReplyPart> {
        if self.broken {
            return some(self.text.push(id));
        }
        let inside = self.parser.current().is_some();
        if let Err(error) = self.parser.push(id) {
            self.broken = true;
            let mut parts = some(self.text.finish());
            parts.push(ReplyPart::Broken(error));
            parts.extend(some(self.text.push(id)));
            return parts;
        }
        match (inside, self.parser.current()) {
            (false, Some(header)) => vec![ReplyPart::Open(header.clone())],
            (true, Some(_)) => some(self.text.push(id)),
            (true, None) => {
                let mut parts = some(self.text.finish());
                parts
                    .extend(self.parser.messages().last().map(|message| ReplyPart::Close(message.closed_by)));
                parts
            }
            (false, None) => Vec::new(),
        }
    }

    /// The text that was still waited for, where the reply ends here.
    pub fn finish(&mut self) -> Option<String> {
        Some(self.text.finish()).filter(|text| !text.is_empty())
    }
}

fn some(text: String) -> Vec<ReplyPart> {
    if text.is_empty() { Vec::new() } else { vec![ReplyPart::Text(text)] }
}
