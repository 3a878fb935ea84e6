//! Conversations to tokens: chat template, tokenizer, the channel of every token, loss masks, data order.
//!
//! This crate knows what a gpt-oss conversation is and how it becomes training data. It holds no tensors, knows no
//! model weights, prints nothing, asks neither the clock nor the environment, and opens only the files it is given.
//!
//! The path of a row:
//!
//! 1. [`read`] takes it from a file as a [`Conversation`].
//! 2. [`Renderer`] runs the model's own chat template and encodes the text; control tokens come from the template alone.
//! 3. [`parse`] finds the messages in the ids: role, channel, recipient, and where each begins and ends.
//! 4. [`mask`] says which tokens are trained, as a policy over those messages.
//! 5. [`prepare`] does all that for a whole file and accounts for every row.
//! 6. [`Order`] says which example comes when, from a seed and a position; [`pack`] puts several into one sequence.

pub mod conversation;
mod date;
mod error;
mod escape;
mod file;
mod header;
pub mod limits;
mod locate;
pub mod mask;
mod order;
pub mod pack;
pub mod parse;
pub mod prepare;
pub mod preview;
mod python;
mod python_text;
pub mod read;
mod render;
mod scan;
mod special;
mod template;
mod tokenizer;
mod tokenizer_file;
mod views;
#[cfg(feature = "gpt-oss-vocabulary")]
pub mod vocabulary;
mod words;

pub use conversation::{Conversation, Message, Role, ToolCall};
pub use date::{Date, PINNED_DATE};
pub use error::{Error, Result};
pub use header::{Channel, Header};
pub use mask::{LossMask, LossWeights, MaskPolicy, Masker, TokenClass};
pub use order::Order;
pub use parse::{Closing, MessageSpan, ParseError, ParseErrorKind, Parsed, StreamParser};
pub use render::{RenderOptions, Rendered, Renderer};
pub use special::{ControlTokens, Piece};
pub use template::{ChatTemplate, TemplateInput, TemplateSource};
pub use tokenizer::{TextEncoder, Tokenizer};
pub use views::{View, ViewPolicy};
