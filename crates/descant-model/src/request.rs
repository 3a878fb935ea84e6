//! What is asked of generation, and what it tells while it runs.
//!
//! This is the interface that every engine serves: the one of this crate's forward pass, and whatever a device has of its
//! own behind [`GptOss::generate`](crate::GptOss::generate).

use serde::{Deserialize, Serialize};

use crate::sample::Sampling;

/// One prompt to continue.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The tokens to continue; not empty.
    pub prompt: Vec<u32>,
    /// New tokens at most.
    pub max_new_tokens: usize,
    /// Whether the overlay takes part; the bare model without.
    pub adapter: bool,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Which random numbers of the seed are drawn: samples of one prompt have different ones. With the same seed, stream
    /// and prompt the reply is the same, whatever else is asked with it.
    pub stream: u64,
}

impl Request {
    /// A prompt continued greedily, overlay included.
    pub fn greedy(prompt: Vec<u32>, max_new_tokens: usize) -> Self {
        Self { prompt, max_new_tokens, adapter: true, sampling: Sampling::GREEDY, stream: 0 }
    }
}

/// What holds for all prompts that are continued together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GenerateOptions {
    /// Ids after which a sequence is done; empty to continue to the end.
    pub stop_ids: Vec<u32>,
    /// Log-probabilities to report: none, or that of the chosen token and of so many of the likeliest.
    pub log_probabilities: Option<usize>,
    /// Sequences that are at work at once; as many as the device is good for where nothing is said. A card takes
    /// [`STEP_ROWS`](descant_kernels::STEP_ROWS) at most.
    pub at_once: Option<usize>,
    /// Most tokens whose keys and values are there at once; what memory holds where nothing is said.
    pub cache_tokens: Option<usize>,
}

/// A token that was just chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct NewToken<'a> {
    /// Index of its request.
    pub sequence: usize,
    /// Its place among the new tokens of its sequence, from 0.
    pub step: usize,
    /// The token.
    pub id: u32,
    /// Its log-probability in nats under softmax of the logits as the model gave them, before temperature, penalty and
    /// filters; where asked for.
    pub log_probability: Option<f32>,
    /// The likeliest tokens with theirs, as many as asked for.
    pub top: &'a [(u32, f32)],
}

/// What a watcher wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Go {
    /// All sequences continue.
    On,
    /// This sequence ends with this token.
    EndSequence,
    /// Every sequence ends here; nothing more is reported of the others.
    EndAll,
}

/// Whoever watches generation.
///
/// An engine may compute ahead of what it tells: what it computed beyond a token with which a watcher ended a sequence
/// is never told and never part of the result.
pub trait Watch {
    /// A token of a sequence. Those of one sequence come in order; sequences may be mixed in any way.
    fn token(&mut self, token: &NewToken<'_>) -> Go;

    /// A sequence ended; its last token, if it has any, came before.
    fn ended(&mut self, _sequence: usize, _stop: StopReason) {}
}

/// Nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn token(&mut self, _token: &NewToken<'_>) -> Go {
        Go::On
    }
}

/// Tells how many sequences are done, each time one ends.
pub struct CountDone<F: FnMut(usize)> {
    done: usize,
    tell: F,
}

impl<F: FnMut(usize)> CountDone<F> {
    /// Tells `tell`.
    pub fn new(tell: F) -> Self {
        Self { done: 0, tell }
    }
}

impl<F: FnMut(usize)> Watch for CountDone<F> {
    fn token(&mut self, _token: &NewToken<'_>) -> Go {
        Go::On
    }

    fn ended(&mut self, _sequence: usize, _stop: StopReason) {
        self.done += 1;
        (self.tell)(self.done);
    }
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// A stop id came; it is the last of the new tokens.
    StopToken,
    /// `max_new_tokens` was reached.
    Length,
    /// Prompt and reply fill the model's context.
    Context,
    /// The watcher ended it.
    Stopped,
}

/// A prompt's continuation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generated {
    /// New tokens only, the stop token included.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub stop: StopReason,
    /// The log-probability of each, in nats; empty where it was not asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log_probabilities: Vec<f32>,
    /// The likeliest tokens at each, the likeliest first; empty where none were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<Vec<(u32, f32)>>,
}
