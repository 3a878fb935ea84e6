//! What can be typed beside messages.

use std::path::PathBuf;

use crate::settings::check_effort;

pub(super) const HELP: &str = "\
/effort low|medium|high  how long to reason
/language NAME           ask for reasoning in a language; no NAME: in any
/system TEXT             instructions before the conversation; no TEXT: none
/compare                 the base's reply to the last message
/compare on|off          base and adapter reply to each message, or not
/retry                   another reply to the last message
/reset                   a new conversation
/save FILE               add the conversation to FILE, which `train` reads
/quit                    end, as Ctrl-D does
//TEXT                   a message that begins with /

Ctrl-C stops a reply. Lines behind a bar are reasoning; the answer has none.
Arrow keys find what was typed; pasted text of several lines is one message.
";

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Quit,
    Effort(String),
    Language(Option<String>),
    System(Option<String>),
    Compare(Option<bool>),
    Retry,
    Reset,
    Save(PathBuf),
}

impl Command {
    /// `None` for a message; an error for a command that there is not.
    pub(super) fn parse(line: &str) -> Option<Result<Self, String>> {
        let line = line.trim();
        let command = line.strip_prefix('/').filter(|rest| !rest.starts_with('/'))?;
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        let text = (!rest.is_empty()).then(|| rest.to_owned());
        let alone = |command: Self| match &text {
            None => Ok(command),
            Some(text) => Err(format!("/{name} takes no argument, but got `{text}`")),
        };
        Some(match name {
            "help" | "?" => alone(Self::Help),
            "quit" | "exit" => alone(Self::Quit),
            "retry" => alone(Self::Retry),
            "reset" => alone(Self::Reset),
            "effort" => check_effort("/effort", rest).map(|()| Self::Effort(rest.to_owned())),
            "language" if rest.contains(char::is_control) => Err("/language takes one name".to_owned()),
            "language" => Ok(Self::Language(text)),
            "system" => Ok(Self::System(text)),
            "compare" => match rest {
                "" => Ok(Self::Compare(None)),
                "on" => Ok(Self::Compare(Some(true))),
                "off" => Ok(Self::Compare(Some(false))),
                other => Err(format!("/compare takes on, off or nothing; not `{other}`")),
            },
            "save" => text
                .map(|path| Self::Save(path.into()))
                .ok_or_else(|| "/save needs a file: /save chat.jsonl".to_owned()),
            _ => Err(format!("there is no /{name}; /help lists commands, //{command} sends it as a message")),
        })
    }
}

/// A message as it was meant: two slashes are one.
pub(super) fn message(line: &str) -> String {
    line.strip_prefix("//").map_or_else(|| line.to_owned(), |rest| format!("/{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_a_terminal_of_80_columns() {
        for line in HELP.lines() {
            assert!(line.len() < 80, "{line}");
        }
    }

    #[test]
    fn lines_are_messages_or_commands() {
        let parse = |line: &str| Command::parse(line);
        assert_eq!(parse("Hello / there"), None);
        assert_eq!(parse("//effort"), None);
        assert_eq!(message("//effort x"), "/effort x");
        assert_eq!(message("a//b"), "a//b");
        assert_eq!(parse("/effort high"), Some(Ok(Command::Effort("high".into()))));
        assert_eq!(parse("/language"), Some(Ok(Command::Language(None))));
        assert_eq!(parse("/language French"), Some(Ok(Command::Language(Some("French".into())))));
        assert_eq!(parse("/system Be\nbrief."), Some(Ok(Command::System(Some("Be\nbrief.".into())))));
        assert_eq!(parse("/compare on"), Some(Ok(Command::Compare(Some(true)))));
        assert_eq!(parse("/save a b.jsonl"), Some(Ok(Command::Save("a b.jsonl".into()))));
        for wrong in ["/effort", "/effort max", "/compare x", "/save", "/reset now", "/nothing", "/"] {
            assert!(matches!(parse(wrong), Some(Err(_))), "{wrong}");
        }
    }
}
