//! From ids to messages, one id at a time.
//!
//! The same machine reads rendered rows and what a model generates: rows to know the channel of every token, replies
//! to know whether they are valid Harmony and what they say. Anything that is not Harmony is an error with its
//! position; nothing panics, and messages that were complete before the error stay readable.
//!
//! ```text
//! between --<|start|>--> header --<|message|>--> body --<|end|> | <|return|> | <|call|>--> between
//! ```

use crate::error::{ParseError, ParseErrorKind};
use crate::limits;
use crate::messages::header::{Header, HeaderText};
use crate::tokens::special::ControlTokens;
use crate::tokens::tokenizer::{TextEncoder, Tokenizer};
use std::ops::Range;

/// The token that closed a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closing {
    /// `<|end|>`: another message follows.
    End,
    /// `<|return|>`: the reply is complete.
    Return,
    /// `<|call|>`: a tool is called.
    Call,
}

impl Closing {
    /// Whether a model stops generating here.
    pub fn ends_generation(self) -> bool {
        self != Self::End
    }
}

/// One message and where it is in the ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageSpan {
    /// What the header says.
    pub header: Header,
    /// Index of its `<|start|>`. For a reply's first message, which the prompt opened: 0.
    pub start: usize,
    /// Index of the first token after `<|message|>`.
    pub body: usize,
    /// One past the closing token.
    pub end: usize,
    /// The closing token.
    pub closed_by: Closing,
}

impl MessageSpan {
    /// Where the content is: the body without the closing token.
    pub fn content(&self) -> Range<usize> {
        self.body..self.end - 1
    }
}

/// A stream that was read to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The complete messages.
    pub messages: Vec<MessageSpan>,
    /// Index of the `<|start|>` of a header that the stream leaves open: the prompt for the next message.
    pub prompt: Option<usize>,
}

/// Parts of a header, as ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Role,
    Channel,
    Constrain,
}

#[derive(Clone, Debug)]
enum State {
    Between,
    Header { start: usize, part: Part, text: HeaderText, ids: Vec<u32>, length: usize },
    Body { start: usize, body: usize, header: Header },
    Ended,
    Failed(ParseError),
}

/// Reads ids one at a time.
#[derive(Clone, Debug)]
pub struct StreamParser<'t> {
    tokenizer: &'t Tokenizer,
    state: State,
    position: usize,
    /// Whether the stream is one reply, which ends at its first stop token.
    reply: bool,
    messages: Vec<MessageSpan>,
}

impl<'t> StreamParser<'t> {
    /// A parser for whole rows, which begin with `<|start|>`.
    pub fn conversation(tokenizer: &'t Tokenizer) -> Self {
        Self { tokenizer, state: State::Between, position: 0, reply: false, messages: Vec::new() }
    }

    /// A parser for what a model generates after the prompt's `<|start|>assistant`.
    pub fn reply(tokenizer: &'t Tokenizer) -> Self {
        let text = HeaderText { role: "assistant".to_owned(), ..HeaderText::default() };
        let state = State::Header { start: 0, part: Part::Role, text, ids: Vec::new(), length: 0 };
        Self { tokenizer, state, position: 0, reply: true, messages: Vec::new() }
    }

    /// The messages that are complete.
    pub fn messages(&self) -> &[MessageSpan] {
        &self.messages
    }

    /// The header of the message whose body is being read.
    pub fn current(&self) -> Option<&Header> {
        match &self.state {
            State::Body { header, .. } => Some(header),
            _ => None,
        }
    }

    /// Reads one id. After an error every further id gives that error again.
    ///
    /// # Errors
    /// When the id cannot be here.
    pub fn push(&mut self, id: u32) -> Result<(), ParseError> {
        let state = std::mem::replace(&mut self.state, State::Between);
        let result = match state {
            State::Failed(error) => Err(error),
            state => self.step(state, id).map_err(|kind| ParseError { position: self.position, kind }),
        };
        match result {
            Ok(state) => {
                self.state = state;
                self.position += 1;
                Ok(())
            }
            Err(error) => {
                self.state = State::Failed(error.clone());
                Err(error)
            }
        }
    }

    /// Reads the text that a body continues with, all at once; how many ids it has.
    fn pass(&mut self, ids: &[u32]) -> usize {
        let State::Body { .. } = self.state else { return 0 };
        let control = self.tokenizer.control();
        let vocab_size = self.tokenizer.vocab_size();
        let text = |id: &&u32| !control.is_special(**id) && (**id as usize) < vocab_size;
        let passed = ids.iter().take_while(text).count();
        self.position += passed;
        passed
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// When it failed before, or ends inside a message. A row may end in the open header of a prompt.
    pub fn finish(mut self) -> Result<Parsed, ParseError> {
        let position = self.position;
        let unfinished = |place| ParseError { position, kind: ParseErrorKind::Unfinished { place } };
        let prompt = match std::mem::replace(&mut self.state, State::Between) {
            State::Between if self.reply => return Err(unfinished("reply")),
            State::Between | State::Ended => None,
            State::Failed(error) => return Err(error),
            State::Body { .. } => return Err(unfinished("body")),
            State::Header { .. } if self.reply => return Err(unfinished("header")),
            State::Header { start, part, mut text, ids, .. } => {
                self.take_part(part, &ids, &mut text).map_err(|kind| ParseError { position, kind })?;
                text.parse().map_err(|kind| ParseError { position, kind })?;
                Some(start)
            }
        };
        Ok(Parsed { messages: self.messages, prompt })
    }

    fn step(&mut self, state: State, id: u32) -> Result<State, ParseErrorKind> {
        let control = self.tokenizer.control();
        match state {
            State::Between if id == control.start => Ok(State::Header {
                start: self.position,
                part: Part::Role,
                text: HeaderText::default(),
                ids: Vec::new(),
                length: 0,
            }),
            State::Between => Err(ParseErrorKind::ExpectedStart { id }),
            State::Header { start, part, mut text, mut ids, length } => {
                if length >= limits::HEADER_TOKENS {
                    return Err(ParseErrorKind::HeaderTooLong { limit: limits::HEADER_TOKENS });
                }
                let next = next_part(control, id).filter(|next| *next > part);
                if id == control.message {
                    self.take_part(part, &ids, &mut text)?;
                    return Ok(State::Body { start, body: self.position + 1, header: text.parse()? });
                }
                let part = if let Some(next) = next {
                    self.take_part(part, &ids, &mut text)?;
                    ids.clear();
                    next
                } else {
                    self.ordinary(id, "header")?;
                    ids.push(id);
                    part
                };
                Ok(State::Header { start, part, text, ids, length: length + 1 })
            }
            State::Body { start, body, header } => {
                let closed_by = match id {
                    _ if id == control.end => Closing::End,
                    _ if id == control.return_ => Closing::Return,
                    _ if id == control.call => Closing::Call,
                    _ => {
                        self.ordinary(id, "body")?;
                        return Ok(State::Body { start, body, header });
                    }
                };
                let end = self.position + 1;
                self.messages.push(MessageSpan { header, start, body, end, closed_by });
                Ok(if self.reply && closed_by.ends_generation() { State::Ended } else { State::Between })
            }
            State::Ended => Err(ParseErrorKind::AfterEnd),
            State::Failed(error) => Err(error.kind),
        }
    }

    /// An id that must be text.
    fn ordinary(&self, id: u32, place: &'static str) -> Result<(), ParseErrorKind> {
        if let Some(token) = self.tokenizer.control().text(id) {
            return Err(ParseErrorKind::Misplaced { token: token.to_owned(), place });
        }
        if id as usize >= self.tokenizer.vocab_size() {
            return Err(ParseErrorKind::OutOfVocabulary { id });
        }
        Ok(())
    }

    fn take_part(&self, part: Part, ids: &[u32], text: &mut HeaderText) -> Result<(), ParseErrorKind> {
        let decoded = if ids.is_empty() {
            String::new()
        } else {
            let failed = |error: crate::Error| ParseErrorKind::Decode { reason: error.to_string() };
            self.tokenizer.decode(ids).map_err(failed)?
        };
        match part {
            Part::Role => text.role.push_str(&decoded),
            Part::Channel => text.channel = Some(decoded),
            Part::Constrain => text.constrain = Some(decoded),
        }
        Ok(())
    }
}

/// The part of a header that a control token opens.
fn next_part(control: &ControlTokens, id: u32) -> Option<Part> {
    match id {
        _ if id == control.channel => Some(Part::Channel),
        _ if id == control.constrain => Some(Part::Constrain),
        _ => None,
    }
}

/// Reads a whole row.
///
/// # Errors
/// When it is not Harmony.
pub fn parse_conversation(tokenizer: &Tokenizer, ids: &[u32]) -> Result<Parsed, ParseError> {
    parse(StreamParser::conversation(tokenizer), ids)
}

/// Reads a whole reply, which must end with `<|return|>` or `<|call|>`.
///
/// # Errors
/// When it is not Harmony.
pub fn parse_reply(tokenizer: &Tokenizer, ids: &[u32]) -> Result<Parsed, ParseError> {
    parse(StreamParser::reply(tokenizer), ids)
}

fn parse(mut parser: StreamParser<'_>, ids: &[u32]) -> Result<Parsed, ParseError> {
    let mut left = ids;
    while let Some((id, rest)) = left[parser.pass(left)..].split_first() {
        parser.push(*id)?;
        left = rest;
    }
    parser.finish()
}
