//! A reply as ids, taken apart: its messages, the first thing that is wrong with it, and how it ended.
//!
//! A reply is what a model generates after the prompt's `<|start|>assistant`.

use descant_harmony::{
    Channel, Closing, MessageSpan, ParseErrorKind, Role, StreamParser, TextEncoder, Tokenizer,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::chars::has_words;
use crate::loops::looped;

/// How a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// With a stop id.
    Ended,
    /// At the limit, caught in a loop.
    Looped,
    /// At the limit.
    Cut,
}

/// What became of the reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Analysis {
    /// There is one, with a letter or a digit in it.
    Present,
    /// There is one, without.
    Empty,
    /// There is none.
    Missing,
    /// The reply stopped in it.
    Truncated,
}

/// A reply, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// `valid`, or the first defect by name.
    pub harmony: &'static str,
    /// How it ended.
    pub end: End,
    /// What became of the reasoning.
    pub analysis: Analysis,
    /// The reasoning: every analysis, joined by newlines.
    pub reasoning: String,
    /// Its tokens, without control tokens.
    pub analysis_tokens: usize,
    /// The first final that any closing token ends.
    pub answer: Option<String>,
    /// Whom a valid reply that ends in a call is for.
    pub called: Option<String>,
}

/// A body that was open where reading stopped.
struct Open {
    channel: Option<Channel>,
    from: usize,
    to: usize,
}

/// What the parser made of the ids.
struct Parsed {
    messages: Vec<MessageSpan>,
    open: Option<Open>,
    defect: Option<&'static str>,
}

fn parse(ids: &[u32], tokenizer: &Tokenizer) -> Parsed {
    let mut parser = StreamParser::reply(tokenizer);
    let mut from = 0;
    let mut defect = None;
    let mut read = ids.len();
    let mut channel = None;
    for (at, id) in ids.iter().enumerate() {
        let in_body = parser.current().is_some();
        channel = parser.current().and_then(|header| header.channel);
        let has_ended = parser.messages().last().is_some_and(|last| last.closed_by.ends_generation());
        let is_last = at + 1 == ids.len();
        let failed = if *id == tokenizer.control().endoftext && is_last && !has_ended {
            Some("endoftext")
        } else {
            parser.push(*id).err().map(|error| name(&error.kind))
        };
        if failed.is_some() {
            defect = failed;
            read = at;
            let open = in_body.then_some(Open { channel, from, to: read });
            return Parsed { messages: parser.messages().to_vec(), open, defect };
        }
        if !in_body && let Some(header) = parser.current() {
            from = at + 1;
            channel = header.channel;
        }
    }
    let open = parser.current().is_some().then_some(Open { channel, from, to: read });
    let messages = parser.messages().to_vec();
    if let Err(error) = parser.finish() {
        defect = Some(name(&error.kind));
    }
    Parsed { messages, open, defect }
}

/// The defect that an error of the parser is.
fn name(kind: &ParseErrorKind) -> &'static str {
    match kind {
        ParseErrorKind::ExpectedStart { .. } => "text_between",
        ParseErrorKind::Misplaced { .. } => "stray_token",
        ParseErrorKind::UnknownChannel { .. } => "unknown_channel",
        ParseErrorKind::OutOfVocabulary { .. } => "unknown_id",
        ParseErrorKind::AfterEnd => "after_end",
        ParseErrorKind::Unfinished { .. } => "unfinished",
        // No role, an unknown one, a recipient or word that has no place, a header that is too long or no text.
        _ => "bad_header",
    }
}

/// The first defect of the complete messages. `more` says that something lies behind them.
fn defect(
    messages: &[MessageSpan],
    more: bool,
    tools: &[String],
    body: &dyn Fn(&MessageSpan) -> String,
) -> Option<&'static str> {
    for (at, message) in messages.iter().enumerate() {
        let header = &message.header;
        if header.role != Role::Assistant {
            return Some("wrong_role");
        }
        let Some(channel) = header.channel else { return Some("no_channel") };
        if let Some(recipient) = &header.recipient {
            if channel == Channel::Final {
                return Some("bad_recipient");
            }
            if tools.is_empty() {
                return Some("call_unasked");
            }
            if !tools.contains(recipient) {
                return Some("unknown_tool");
            }
            if message.closed_by != Closing::Call {
                return Some("not_called");
            }
            let is_object = || serde_json::from_str::<Map<String, Json>>(&body(message)).is_ok();
            if recipient.starts_with("functions.") && !is_object() {
                return Some("bad_arguments");
            }
        } else if message.closed_by == Closing::Call {
            return Some("call_without_recipient");
        } else if channel == Channel::Final {
            if message.closed_by != Closing::Return {
                let is_last = at + 1 == messages.len();
                return Some(if more || !is_last { "after_final" } else { "final_not_returned" });
            }
        } else if message.closed_by == Closing::Return {
            return Some("no_final");
        }
    }
    None
}

/// Recipients that tools of these names have: `functions.NAME`, built-in ones as they are.
pub fn recipients<S: AsRef<str>>(names: &[S]) -> Vec<String> {
    let recipient = |name: &str| {
        if name.contains('.') || name == "python" { name.to_owned() } else { format!("functions.{name}") }
    };
    names.iter().map(|name| recipient(name.as_ref())).collect()
}

impl Reading {
    /// Takes a reply apart. `tools` are the recipients that were offered. Ids outside the vocabulary have no text.
    pub fn new(ids: &[u32], tools: &[String], tokenizer: &Tokenizer) -> Self {
        let Parsed { messages, open, defect: broken } = parse(ids, tokenizer);
        let text = |range: std::ops::Range<usize>| tokenizer.decode(&ids[range]).unwrap_or_default();
        let body = |message: &MessageSpan| text(message.content());
        let control = tokenizer.control();
        let more = broken.is_some() && ids.last() != Some(&control.end);
        let is_reply =
            |m: &MessageSpan| m.header.channel == Some(Channel::Final) || m.closed_by == Closing::Call;
        let nothing_said = broken.is_none() && !messages.iter().any(is_reply);
        let harmony = defect(&messages, more, tools, &body)
            .or(nothing_said.then_some("no_final"))
            .or(broken)
            .unwrap_or("valid");
        let end = match ids.last() {
            Some(last) if control.is_stop(*last) => End::Ended,
            _ if looped(ids) => End::Looped,
            _ => End::Cut,
        };
        let is_analysis = |m: &&MessageSpan| {
            m.header.role == Role::Assistant
                && m.header.channel == Some(Channel::Analysis)
                && m.header.recipient.is_none()
        };
        let mut spans: Vec<_> = messages.iter().filter(is_analysis).map(MessageSpan::content).collect();
        let open = open.filter(|open| open.channel == Some(Channel::Analysis)).map(|open| open.from..open.to);
        let is_open = open.is_some();
        spans.extend(open);
        let analysis_tokens = spans.iter().map(ExactSizeIterator::len).sum();
        let reasoning = spans.iter().cloned().map(text).collect::<Vec<_>>().join("\n");
        let analysis = match () {
            () if spans.is_empty() => Analysis::Missing,
            () if is_open => Analysis::Truncated,
            () if has_words(&reasoning) => Analysis::Present,
            () => Analysis::Empty,
        };
        let is_final =
            |m: &&MessageSpan| m.header.role == Role::Assistant && m.header.channel == Some(Channel::Final);
        let called = || messages.iter().find(|m| m.closed_by == Closing::Call)?.header.recipient.clone();
        Self {
            harmony,
            end,
            analysis,
            reasoning,
            analysis_tokens,
            answer: messages.iter().find(is_final).map(body),
            called: if harmony == "valid" { called() } else { None },
        }
    }
}
