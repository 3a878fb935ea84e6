//! The messages in ids that are not Harmony as a whole.
//!
//! Exact rendering lets control tokens in content be control tokens, and a stray one breaks a row for the parser. What
//! such ids still say is what anyone finds who goes by the markers alone: from `<|start|>` over `<|message|>` to the
//! next closing token, whatever is between. It is for looking at; nothing is trained on such a row.

use crate::messages::parse::{Closing, MessageSpan, StreamParser};
use crate::tokens::tokenizer::Tokenizer;

/// Every message that the markers alone make; one whose header cannot be read is left out.
pub(crate) fn scan(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<MessageSpan> {
    let control = tokenizer.control();
    let closing = |id: u32| match id {
        _ if id == control.end => Some(Closing::End),
        _ if id == control.return_ => Some(Closing::Return),
        _ if id == control.call => Some(Closing::Call),
        _ => None,
    };
    let next = |from: usize, wanted: &dyn Fn(u32) -> bool| {
        ids.get(from..)?.iter().position(|id| wanted(*id)).map(|offset| from + offset)
    };
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = next(at, &|id| id == control.start) {
        at = start + 1;
        let Some(marker) = next(at, &|id| id == control.start || id == control.message) else { break };
        if ids[marker] == control.start {
            continue;
        }
        let body = marker + 1;
        let Some(last) = next(body, &|id| closing(id).is_some()) else { break };
        at = last + 1;
        let mut parser = StreamParser::conversation(tokenizer);
        let read = ids[start..body].iter().try_for_each(|id| parser.push(*id));
        let (Ok(()), Some(header), Some(closed_by)) = (read, parser.current(), closing(ids[last])) else {
            continue;
        };
        found.push(MessageSpan { header: header.clone(), start, body, end: at, closed_by });
    }
    found
}
