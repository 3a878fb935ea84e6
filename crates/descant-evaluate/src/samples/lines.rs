//! The lines of `samples.jsonl` behind the header: replies, what decoding a batch took, and losses.

use std::collections::BTreeMap;

use descant_harmony::{TextEncoder as _, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Which reply.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Id of the question.
    pub question: String,
    /// Effort of the prompt.
    pub effort: String,
    /// Whether the prompt asked for a reasoning language.
    pub asked: bool,
    /// Number of the reply, from 0.
    pub sample: u32,
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Which.
    #[serde(flatten)]
    pub key: Key,
    /// The ids behind the prompt, stop id included, without padding.
    #[serde(default)]
    pub ids: Vec<u32>,
    /// `return`, `call`, `endoftext` or `limit`.
    #[serde(default)]
    pub stop: String,
    /// The same for people, special tokens shown.
    #[serde(default)]
    pub text: String,
}

impl Reply {
    /// Its ids: those that were kept, else those of its text.
    ///
    /// # Errors
    /// The tokenizer fails on the text.
    pub fn ids(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        if self.ids.is_empty() { Ok(tokenizer.encode_rendered(&self.text)?) } else { Ok(self.ids.clone()) }
    }
}

/// What decoding a batch took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Number of the batch.
    pub batch: u64,
    /// Replies in it.
    pub replies: usize,
    /// New tokens in it.
    pub new_tokens: usize,
    /// Seconds of decoding, prefill included.
    pub seconds: f64,
}

/// Nats and tokens of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Nats {
    /// Sum of the negative log-probabilities.
    pub nats: f64,
    /// Tokens; for `all`, which is weighed, the sum of the weights.
    pub tokens: f64,
}

/// The token that chooses the language.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct First {
    /// Its negative log-probability.
    pub nats: f64,
    /// 1 where no token is more likely.
    pub rank: u64,
}

/// The loss on one held-out row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Id of the question.
    #[serde(rename = "loss")]
    pub id: String,
    /// By channel: `analysis`, `final`, `commentary`, `format`, and `all` with the trained weights.
    pub channels: BTreeMap<String, Nats>,
    /// Of the first token of the reasoning; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<First>,
}

/// Any line behind the header.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    Reply(Reply),
    Batch(Batch),
    Loss(Loss),
}

pub(super) fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers are JSON")
}
