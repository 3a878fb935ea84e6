//! Why ids are not Harmony.

/// What is wrong with a stream of ids.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// A message did not begin with `<|start|>`.
    #[error("expected <|start|>, found id {id}")]
    ExpectedStart {
        /// What was there.
        id: u32,
    },
    /// A special token is where it has no meaning.
    #[error("special token {token} inside a {place}")]
    Misplaced {
        /// The token's text.
        token: String,
        /// `header` or `body`.
        place: &'static str,
    },
    /// An id that the tokenizer does not know.
    #[error("id {id} is outside the vocabulary")]
    OutOfVocabulary {
        /// The id.
        id: u32,
    },
    /// A header without a role.
    #[error("a header without a role")]
    NoRole,
    /// A role that is none of Harmony's.
    #[error("unknown role `{name}`")]
    UnknownRole {
        /// What was there.
        name: String,
    },
    /// A channel that is none of Harmony's.
    #[error("unknown channel `{name}`")]
    UnknownChannel {
        /// What was there.
        name: String,
    },
    /// An empty recipient, or two.
    #[error("an empty recipient, or two of them")]
    Recipient,
    /// A header with words that have no place.
    #[error("header not understood: `{text}`")]
    Header {
        /// What was there.
        text: String,
    },
    /// A header that does not end.
    #[error("a header of more than {limit} tokens")]
    HeaderTooLong {
        /// The limit, from [`crate::limits`].
        limit: usize,
    },
    /// Ids after the token that ended the reply.
    #[error("ids after the end of the reply")]
    AfterEnd,
    /// The ids end inside a message.
    #[error("the ids end inside a {place}")]
    Unfinished {
        /// `header` or `body`.
        place: &'static str,
    },
    /// The tokenizer failed on a header.
    #[error("{reason}")]
    Decode {
        /// What it said.
        reason: String,
    },
}

/// A place in a stream of ids that is not Harmony.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at token {position}: {kind}")]
pub struct ParseError {
    /// Index of the id; the number of ids where the stream ended too early.
    pub position: usize,
    /// What is wrong.
    pub kind: ParseErrorKind,
}
