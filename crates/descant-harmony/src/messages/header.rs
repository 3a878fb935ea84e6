//! The header of a Harmony message: who speaks, to whom, on which channel, in what format.
//!
//! ```text
//! <|start|> role [to=recipient] [<|channel|> channel [to=recipient] [type]] [<|constrain|> type] <|message|>
//! ```
//!
//! A tool speaks under its own name (`functions.f to=assistant`). This file reads the words between the control
//! tokens; which token may be where is the parser's business.

use crate::error::ParseErrorKind;
use crate::row::channel::Channel;
use crate::row::conversation::Role;

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who speaks.
    pub role: Role,
    /// The tool's name, or the name of a user.
    pub name: Option<String>,
    /// The channel.
    pub channel: Option<Channel>,
    /// Whom the message is for, such as `functions.f`.
    pub recipient: Option<String>,
    /// The format of the body as the header has it: `json`, or `<|constrain|>json`.
    pub content_type: Option<String>,
}

/// The text of a header, cut at its control tokens.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderText {
    /// Before `<|channel|>`.
    pub(crate) role: String,
    /// After `<|channel|>`.
    pub(crate) channel: Option<String>,
    /// After `<|constrain|>`.
    pub(crate) constrain: Option<String>,
}

impl HeaderText {
    pub(crate) fn parse(&self) -> Result<Header, ParseErrorKind> {
        let mut recipient = None;
        let mut words = self.role.split_whitespace();
        let first = words.next().ok_or(ParseErrorKind::NoRole)?;
        let mut rest = Vec::new();
        for word in words {
            match word.strip_prefix("to=") {
                Some(to) => address(&mut recipient, to)?,
                None => rest.push(word),
            }
        }
        let (role, name) = speaker(first, recipient.is_some() || !rest.is_empty())?;
        // A recipient may occur alone, without `to=`.
        match rest.as_slice() {
            [] => {}
            [to] if recipient.is_none() => address(&mut recipient, to)?,
            _ => return Err(ParseErrorKind::Header { text: excerpt(&self.role) }),
        }
        let (mut channel, mut content_type) = (None, None);
        if let Some(text) = &self.channel {
            let mut words = text.split_whitespace();
            let name = words.next().unwrap_or("");
            channel = Some(
                Channel::parse(name).ok_or_else(|| ParseErrorKind::UnknownChannel { name: excerpt(name) })?,
            );
            for word in words {
                match word.strip_prefix("to=") {
                    Some(to) => address(&mut recipient, to)?,
                    None if content_type.is_none() => content_type = Some(word.to_owned()),
                    None => return Err(ParseErrorKind::Header { text: excerpt(text) }),
                }
            }
        }
        if let Some(text) = &self.constrain {
            if content_type.is_some() {
                return Err(ParseErrorKind::Header { text: excerpt(text) });
            }
            content_type = Some(format!("<|constrain|>{}", text.trim()));
        }
        Ok(Header { role, name, channel, recipient, content_type })
    }
}

fn speaker(word: &str, more: bool) -> Result<(Role, Option<String>), ParseErrorKind> {
    // `user:NAME` is how a named user is written.
    let (role, name) = match word.split_once(':') {
        Some((role, name)) if !name.is_empty() => (role, Some(name.to_owned())),
        _ => (word, None),
    };
    let role = match role {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        // A tool's own name: namespaced, or followed by whom it answers.
        _ if more || word.contains('.') => return Ok((Role::Tool, Some(word.to_owned()))),
        _ => return Err(ParseErrorKind::UnknownRole { name: excerpt(word) }),
    };
    Ok((role, name))
}

fn address(recipient: &mut Option<String>, to: &str) -> Result<(), ParseErrorKind> {
    if to.is_empty() || recipient.is_some() {
        return Err(ParseErrorKind::Recipient);
    }
    *recipient = Some(to.to_owned());
    Ok(())
}

/// The beginning of a text, for an error message.
fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(role: &str, channel: Option<&str>, constrain: Option<&str>) -> Result<Header, ParseErrorKind> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        HeaderText { role: role.to_owned(), channel: own(channel), constrain: own(constrain) }.parse()
    }

    #[test]
    fn a_recipient_may_stand_before_or_after_the_channel() {
        let before = parse("assistant to=functions.f", Some("commentary json"), None).unwrap();
        let after = parse("assistant", Some("commentary to=functions.f json"), None).unwrap();
        assert_eq!(before, after);
        assert_eq!(before.recipient.as_deref(), Some("functions.f"));
        assert_eq!(before.content_type.as_deref(), Some("json"));
        let glued = parse("assistant", Some("commentary to=functions.f"), Some("json")).unwrap();
        assert_eq!(glued.content_type.as_deref(), Some("<|constrain|>json"));
        let alone = parse("assistant functions.f", Some("commentary"), None).unwrap();
        assert_eq!(alone.recipient.as_deref(), Some("functions.f"));
    }

    #[test]
    fn a_tool_speaks_under_its_own_name() {
        let tool = parse("functions.f to=assistant", Some("commentary"), None).unwrap();
        assert_eq!((tool.role, tool.name.as_deref()), (Role::Tool, Some("functions.f")));
        let user = parse("user:ada", None, None).unwrap();
        assert_eq!((user.role, user.name.as_deref()), (Role::User, Some("ada")));
    }

    #[test]
    fn each_way_to_be_wrong_has_its_error() {
        use ParseErrorKind as Kind;
        assert!(matches!(parse(" ", None, None), Err(Kind::NoRole)));
        assert!(matches!(parse("wizard", None, None), Err(Kind::UnknownRole { .. })));
        assert!(matches!(parse("assistant", Some("finale"), None), Err(Kind::UnknownChannel { .. })));
        assert!(matches!(parse("assistant", Some(""), None), Err(Kind::UnknownChannel { .. })));
        assert!(matches!(parse("assistant to=a", Some("final to=b"), None), Err(Kind::Recipient)));
        assert!(matches!(parse("assistant to=", None, None), Err(Kind::Recipient)));
        assert!(matches!(parse("assistant a b", None, None), Err(Kind::Header { .. })));
        assert!(matches!(parse("assistant", Some("final a b"), None), Err(Kind::Header { .. })));
        assert!(matches!(parse("assistant", Some("final a"), Some("b")), Err(Kind::Header { .. })));
    }
}
