//! The channels of an assistant's messages.

use std::fmt;

/// The channel of an assistant's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// Reasoning, not shown to the user.
    Analysis,
    /// Tool calls and remarks on the way.
    Commentary,
    /// The answer.
    Final,
}

impl Channel {
    /// The channel's name in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Analysis => "analysis",
            Self::Commentary => "commentary",
            Self::Final => "final",
        }
    }

    /// The channel of a name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Analysis, Self::Commentary, Self::Final].into_iter().find(|channel| channel.as_str() == text)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
