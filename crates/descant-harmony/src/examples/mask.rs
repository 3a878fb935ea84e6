//! Which tokens are trained, and how much each counts.
//!
//! A mask is a policy over parsed messages, never a search through text, with one exception: `final_only` promises
//! exactly what the tutorial's helper marks, and that helper searches for two markers. The token that closes a trained
//! message is always trained, since a model that never learns to stop does not stop.

use crate::error::{Error, Result};
use crate::examples::rendered::Rendered;
use crate::messages::parse::{Closing, MessageSpan};
use crate::row::channel::Channel;
use crate::row::conversation::Role;
use crate::tokens::special::ControlTokens;
use crate::tokens::tokenizer::{TextEncoder, Tokenizer};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Which tokens are trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MaskPolicy {
    /// All that the model itself must emit: everything of assistant messages after the `<|start|>assistant` that the
    /// prompt holds. A second message in the same turn is trained with its `<|start|>assistant`.
    #[default]
    Assistant,
    /// From after `<|start|>assistant<|channel|>final<|message|>` to the next `<|start|>user<|message|>` or the end, as
    /// the tutorial's `train_on_responses_only` does. The reasoning is not trained.
    FinalOnly,
    /// Every token.
    Everything,
}

impl fmt::Display for MaskPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl MaskPolicy {
    /// The policy's name in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assistant => "assistant",
            Self::FinalOnly => "final_only",
            Self::Everything => "everything",
        }
    }
}

/// What the trained tokens of each channel count for; 0 leaves a channel out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LossWeights {
    /// Reasoning.
    pub analysis: f32,
    /// Tool calls and remarks.
    pub commentary: f32,
    /// Answers.
    #[serde(rename = "final")]
    pub final_: f32,
}

impl Default for LossWeights {
    fn default() -> Self {
        Self { analysis: 1.0, commentary: 1.0, final_: 1.0 }
    }
}

impl LossWeights {
    fn of(&self, class: TokenClass) -> f32 {
        match class {
            TokenClass::Analysis => self.analysis,
            TokenClass::Commentary => self.commentary,
            TokenClass::Final => self.final_,
            _ => 1.0,
        }
    }
}

/// What a token is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TokenClass {
    /// The system message.
    System,
    /// The developer message.
    Developer,
    /// A user message.
    User,
    /// A tool's answer.
    Tool,
    /// An assistant message on the analysis channel.
    Analysis,
    /// An assistant message on the commentary channel.
    Commentary,
    /// An assistant message on the final channel.
    Final,
    /// An assistant message without a channel.
    Unchanneled,
    /// The open header that asks for the next message.
    Prompt,
}

impl TokenClass {
    /// Every class, in the order of its number.
    pub const ALL: [Self; 9] = [
        Self::System,
        Self::Developer,
        Self::User,
        Self::Tool,
        Self::Analysis,
        Self::Commentary,
        Self::Final,
        Self::Unchanneled,
        Self::Prompt,
    ];

    /// The class of a message's tokens.
    pub fn of(message: &MessageSpan) -> Self {
        match (message.header.role, message.header.channel) {
            (Role::System, _) => Self::System,
            (Role::Developer, _) => Self::Developer,
            (Role::User, _) => Self::User,
            (Role::Tool, _) => Self::Tool,
            (Role::Assistant, Some(Channel::Analysis)) => Self::Analysis,
            (Role::Assistant, Some(Channel::Commentary)) => Self::Commentary,
            (Role::Assistant, Some(Channel::Final)) => Self::Final,
            (Role::Assistant, None) => Self::Unchanneled,
        }
    }

    /// The class's name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Tool => "tool",
            Self::Analysis => "analysis",
            Self::Commentary => "commentary",
            Self::Final => "final",
            Self::Unchanneled => "assistant",
            Self::Prompt => "prompt",
        }
    }
}

/// Tokens of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCount {
    /// All of them.
    pub tokens: u64,
    /// The trained ones.
    pub trained: u64,
}

/// Tokens of every class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounts([ClassCount; TokenClass::ALL.len()]);

impl ClassCounts {
    /// The tokens of a class.
    pub fn of(&self, class: TokenClass) -> ClassCount {
        self.0[class as usize]
    }

    /// Every class that occurs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (TokenClass, ClassCount)> + '_ {
        TokenClass::ALL.into_iter().map(|class| (class, self.of(class))).filter(|(_, count)| count.tokens > 0)
    }

    /// All classes together.
    pub fn total(&self) -> ClassCount {
        self.0.iter().fold(ClassCount::default(), |sum, count| ClassCount {
            tokens: sum.tokens + count.tokens,
            trained: sum.trained + count.trained,
        })
    }

    /// Adds the tokens of another row.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            mine.tokens += theirs.tokens;
            mine.trained += theirs.trained;
        }
    }
}

impl Serialize for ClassCounts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(class, count)| (class.as_str(), count)))
    }
}

impl<'de> Deserialize<'de> for ClassCounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut counts = Self::default();
        for (name, count) in BTreeMap::<String, ClassCount>::deserialize(deserializer)? {
            let class = TokenClass::ALL.into_iter().find(|class| class.as_str() == name);
            let class =
                class.ok_or_else(|| D::Error::custom(format_args!("`{name}` is not a token class")))?;
            counts.0[class as usize] = count;
        }
        Ok(counts)
    }
}

/// The loss weight and the class of every token of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct LossMask {
    /// What each token counts for when it is predicted; 0 is not trained.
    pub weights: Vec<f32>,
    /// What each token is part of.
    pub classes: Vec<TokenClass>,
}

impl LossMask {
    /// How many tokens are trained.
    pub fn trained(&self) -> usize {
        self.weights.iter().filter(|weight| **weight > 0.0).count()
    }

    /// Whether each token is trained.
    pub fn bits(&self) -> impl Iterator<Item = bool> + '_ {
        self.weights.iter().map(|weight| *weight > 0.0)
    }

    /// Tokens by class.
    pub fn counts(&self) -> ClassCounts {
        let mut counts = ClassCounts::default();
        for (class, trained) in self.classes.iter().zip(self.bits()) {
            let count = &mut counts.0[*class as usize];
            count.tokens += 1;
            count.trained += u64::from(trained);
        }
        counts
    }
}

/// A policy with its weights, and the markers it needs in a tokenizer's ids.
#[derive(Clone, Debug)]
pub struct Masker {
    policy: MaskPolicy,
    weights: LossWeights,
    control: ControlTokens,
    /// `<|start|>assistant`
    prompt: Vec<u32>,
    /// `<|start|>assistant<|channel|>final<|message|>`
    response: Vec<u32>,
    /// `<|start|>user<|message|>`
    instruction: Vec<u32>,
}

impl Masker {
    /// A policy for a tokenizer.
    ///
    /// # Errors
    /// When a weight is negative or not finite.
    pub fn new(tokenizer: &Tokenizer, policy: MaskPolicy, weights: LossWeights) -> Result<Self> {
        let named =
            [("analysis", weights.analysis), ("commentary", weights.commentary), ("final", weights.final_)];
        if let Some((channel, value)) =
            named.into_iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0))
        {
            return Err(Error::Weight { channel, value });
        }
        Ok(Self {
            policy,
            weights,
            control: tokenizer.control().clone(),
            prompt: tokenizer.encode_rendered("<|start|>assistant")?,
            response: tokenizer.encode_rendered("<|start|>assistant<|channel|>final<|message|>")?,
            instruction: tokenizer.encode_rendered("<|start|>user<|message|>")?,
        })
    }

    /// Tokens of `<|start|>assistant`, with which a prompt ends.
    pub(super) fn opening(&self) -> usize {
        self.prompt.len()
    }

    /// The policy.
    pub fn policy(&self) -> MaskPolicy {
        self.policy
    }

    /// The mask of a rendered row, in which no token before `trained_from` is trained (0 for the whole row).
    ///
    /// # Errors
    /// [`Error::EmptyMask`] when it marks nothing; [`Error::Harmony`] when the row is not Harmony.
    pub fn mask(&self, rendered: &Rendered, trained_from: usize) -> Result<LossMask> {
        if let Some(error) = &rendered.broken {
            return Err(Error::Harmony(error.clone()));
        }
        let mut mask = self.mask_ids(&rendered.ids, &rendered.messages, trained_from)?;
        for (message, weight) in rendered.messages.iter().zip(&rendered.weights) {
            let tokens = mask.weights.get_mut(message.start..message.end).unwrap_or_default();
            for token in tokens {
                *token *= weight;
            }
        }
        self.some(mask)
    }

    /// As [`Masker::mask`], for ids and the messages found in them.
    ///
    /// # Errors
    /// [`Error::EmptyMask`] when it marks nothing.
    pub fn mask_ids(&self, ids: &[u32], messages: &[MessageSpan], trained_from: usize) -> Result<LossMask> {
        let mut classes = vec![TokenClass::Prompt; ids.len()];
        for message in messages {
            if let Some(tokens) = classes.get_mut(message.start..message.end) {
                tokens.fill(TokenClass::of(message));
            }
        }
        let mut trained = match self.policy {
            MaskPolicy::Assistant => self.assistant(ids, messages),
            MaskPolicy::FinalOnly => self.final_only(ids),
            MaskPolicy::Everything => vec![true; ids.len()],
        };
        trained.iter_mut().take(trained_from).for_each(|trained| *trained = false);
        let weight =
            |(class, trained): (&TokenClass, bool)| if trained { self.weights.of(*class) } else { 0.0 };
        let weights = classes.iter().zip(trained).map(weight).collect();
        self.some(LossMask { weights, classes })
    }

    fn some(&self, mask: LossMask) -> Result<LossMask> {
        if mask.trained() == 0 { Err(Error::EmptyMask { policy: self.policy.as_str() }) } else { Ok(mask) }
    }

    fn assistant(&self, ids: &[u32], messages: &[MessageSpan]) -> Vec<bool> {
        let mut trained = vec![false; ids.len()];
        let mut emitted_by_model = false;
        for message in messages {
            if message.header.role != Role::Assistant {
                emitted_by_model = false;
                continue;
            }
            // The prompt holds `<|start|>assistant` unless the model continued by itself after an `<|end|>`.
            let given = if emitted_by_model { 0 } else { self.given(ids, message) };
            if let Some(tokens) = trained.get_mut(message.start + given..message.end) {
                tokens.fill(true);
            }
            emitted_by_model = message.closed_by == Closing::End;
        }
        trained
    }

    /// How many tokens of a message the prompt holds.
    fn given(&self, ids: &[u32], message: &MessageSpan) -> usize {
        let tokens = ids.get(message.start..message.end).unwrap_or_default();
        if tokens.starts_with(&self.prompt) {
            return self.prompt.len();
        }
        // `assistant` was tokenized together with what follows it: all text before the first control token is given.
        tokens.iter().skip(1).position(|id| self.control.is_special(*id)).map_or(0, |at| at + 1)
    }

    fn final_only(&self, ids: &[u32]) -> Vec<bool> {
        let mut trained = vec![false; ids.len()];
        let (mut on, mut at) = (false, 0);
        while at < ids.len() {
            if on && ids[at..].starts_with(&self.instruction) {
                on = false;
            }
            if !on && ids[at..].starts_with(&self.response) {
                on = true;
                at += self.response.len();
                continue;
            }
            trained[at] = on;
            at += 1;
        }
        trained
    }
}
