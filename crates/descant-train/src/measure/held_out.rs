//! Prompts that are never trained on, with what a right reply looks like.

use descant_harmony::{Conversation, Message, Role};

use super::language::Language;

/// One held-out row: the same question asked in two ways.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOut {
    /// The prompt as the row has it, with its request for a reasoning language.
    pub asked: Conversation,
    /// The prompt without that request.
    pub plain: Conversation,
    /// The language requested.
    pub language: Language,
    /// The row's own final.
    pub answer: String,
    /// What the user says last.
    pub user: String,
}

impl HeldOut {
    /// Takes a row apart: the conversation up to its last assistant message, which is the answer, and the language
    /// that the row says its reasoning is in.
    ///
    /// # Errors
    /// Says what the row lacks.
    pub fn new(conversation: &Conversation, reasoning_language: Option<&str>) -> Result<Self, String> {
        let name = reasoning_language.ok_or("no `reasoning_language`")?;
        let language = Language::from_name(name).ok_or_else(|| {
            let known = Language::ALL.map(Language::name).join(", ");
            format!("`reasoning_language` is `{name}`; expected one of {known}")
        })?;
        let messages = &conversation.messages;
        let last = messages.iter().rposition(|m| m.role == Role::Assistant).ok_or("no assistant message")?;
        let answer = text(&messages[last]).ok_or("the last assistant message has no text")?;
        let user = messages[..last].iter().rfind(|m| m.role == Role::User).and_then(text);
        let user = user.ok_or("no user message before the last assistant message")?;
        let asked = conversation.prefix(last);
        let plain = without_request(&asked, name)?;
        Ok(Self { asked, plain, language, answer, user })
    }
}

fn text(message: &Message) -> Option<String> {
    message.content.as_ref()?.as_str().map(str::to_owned)
}

/// Removes `reasoning language: NAME` and the empty line after it from the first message.
fn without_request(asked: &Conversation, name: &str) -> Result<Conversation, String> {
    let request = format!("reasoning language: {name}");
    let missing = || format!("the first message does not begin with `{request}`");
    let mut plain = asked.clone();
    let first = plain.messages.first_mut().ok_or_else(missing)?;
    let rest = text(first)
        .and_then(|text| text.strip_prefix(&request).map(|r| r.trim_start_matches('\n').to_owned()));
    match rest.ok_or_else(missing)? {
        rest if rest.is_empty() => {
            plain.messages.remove(0);
        }
        rest => first.content = Some(rest.into()),
    }
    Ok(plain)
}
