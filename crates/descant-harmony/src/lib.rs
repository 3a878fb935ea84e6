//! Conversations to tokens: chat template, tokenizer, the channel of every token, loss masks, data order.
//!
//! This crate knows what a gpt-oss conversation is and how it becomes training data. It holds no tensors, knows no
//! model weights, prints nothing, asks neither the clock nor the environment, and opens only the files it is given.
//!
//! Its modules form a line; each knows only those before it:
//!
//! 1. `row`: what a row says, whatever form it was written in: a [`Conversation`].
//! 2. [`read`]: the files that rows come from.
//! 3. `text`: the model's own chat template, run on a conversation; control tokens come from the template alone.
//! 4. `tokens`: text to ids and back.
//! 5. `messages`: ids to messages ([`parse`]): role, channel, recipient, and where each begins and ends.
//! 6. `examples`: [`Renderer`] goes the whole way for one conversation, [`mask`] says which tokens are trained,
//!    [`prepare`] does both for a whole file and accounts for every row, [`Order`] says which example comes when, from
//!    a seed and a position, and [`pack`] puts several into one sequence.
//! 7. [`store`]: prepared examples in a file, read one by one.

mod digest;
mod error;
mod examples;
mod file;
pub mod limits;
mod messages;
pub mod read;
mod row;
pub mod store;
mod text;
mod tokens;

pub use error::{Error, ParseError, ParseErrorKind, Result};
pub use examples::mask::{LossMask, LossWeights, MaskPolicy, Masker, TokenClass};
pub use examples::order::Order;
pub use examples::render::{RenderOptions, Renderer};
pub use examples::rendered::Rendered;
pub use examples::views::{View, ViewPolicy};
pub use examples::{languages, mask, pack, prepare, preview};
pub use messages::header::Header;
pub use messages::parse;
pub use messages::parse::{Closing, MessageSpan, Parsed, StreamParser};
pub use messages::reply::{ReplyPart, ReplyStream};
pub use row::channel::Channel;
pub use row::conversation;
pub use row::conversation::{Conversation, Message, Role, ToolCall};
pub use row::date::{Date, PINNED_DATE};
pub use row::ignored::{Ignored, IgnoredKey, Place};
pub use row::input::TemplateInput;
pub use text::template::{ChatTemplate, TemplateSource};
pub use tokens::special::{ControlTokens, Piece};
pub use tokens::stream::TextStream;
pub use tokens::tokenizer::{TextEncoder, Tokenizer};
pub use tokens::vocabulary;
