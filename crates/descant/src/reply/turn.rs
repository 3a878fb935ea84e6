//! What a reply says, and the message that it becomes in a conversation.

use descant_harmony::{Channel, Message, ReplyPart, ReplyStream, Tokenizer};

/// A reply, taken apart. One that was cut off has what came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    /// The reasoning, where there is any.
    pub(crate) thinking: Option<String>,
    /// The answer, where it began.
    pub(crate) answer: Option<String>,
    /// Whether it ended as a reply does.
    pub(crate) complete: bool,
    /// The tools that it calls.
    pub(crate) calls: Vec<String>,
}

impl Turn {
    /// Reads the new ids of a reply.
    pub(crate) fn read(tokenizer: &Tokenizer, ids: &[u32]) -> Self {
        let (mut turn, mut channel, mut stream) = (Self::default(), None, ReplyStream::new(tokenizer));
        let mut parts: Vec<ReplyPart> = ids.iter().flat_map(|id| stream.push(*id)).collect();
        parts.extend(stream.finish().map(ReplyPart::Text));
        for part in parts {
            match part {
                ReplyPart::Open(header) => {
                    turn.calls.extend(header.recipient.clone());
                    channel = header.channel.filter(|_| header.recipient.is_none());
                    match channel {
                        Some(Channel::Analysis) => match &mut turn.thinking {
                            Some(before) => before.push_str("\n\n"),
                            none => *none = Some(String::new()),
                        },
                        Some(Channel::Final) => turn.answer = Some(String::new()),
                        _ => {}
                    }
                }
                ReplyPart::Text(text) => {
                    let part = match channel {
                        Some(Channel::Analysis) => &mut turn.thinking,
                        Some(Channel::Final) => &mut turn.answer,
                        _ => continue,
                    };
                    part.get_or_insert_default().push_str(&text);
                }
                ReplyPart::Close(closing) => turn.complete = closing.ends_generation(),
                ReplyPart::Broken(_) => channel = None,
            }
        }
        turn
    }

    /// The message for the turns that follow; `None` where there is no answer.
    pub(crate) fn message(&self) -> Option<Message> {
        Some(Message::assistant(self.thinking.clone(), self.answer.clone()?))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use descant_harmony::TextEncoder as _;

    use super::*;

    fn read(text: &str) -> Turn {
        let tiny = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss"));
        let tokenizer = Tokenizer::load(tiny).unwrap();
        Turn::read(&tokenizer, &tokenizer.encode_rendered(text).unwrap())
    }

    #[test]
    fn a_reply_becomes_a_message_as_far_as_it_went() {
        let thought = "<|channel|>analysis<|message|>Hm.";
        let whole =
            read(&format!("{thought}<|end|><|start|>assistant<|channel|>final<|message|>97<|return|>"));
        assert_eq!(whole.message(), Some(Message::assistant(Some("Hm.".into()), "97")));
        assert!(whole.complete);
        let cut = read(&format!("{thought}<|end|><|start|>assistant<|channel|>final<|message|>9"));
        assert_eq!((cut.answer.as_deref(), cut.complete), (Some("9"), false));
        let thinking = read(thought);
        assert_eq!((thinking.thinking.as_deref(), thinking.message()), (Some("Hm."), None));
        let call = read("<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>");
        assert_eq!((call.message(), call.calls.len()), (None, 1));
        assert_eq!(read("97"), Turn::default(), "what is not Harmony says nothing");
    }
}
