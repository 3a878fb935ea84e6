//! What a data set becomes, and how: settings of the preparation, an example, the account of all rows.

use crate::examples::languages::LanguageShare;
use crate::examples::mask::{ClassCount, ClassCounts, LossMask, LossWeights, MaskPolicy, TokenClass};
use crate::examples::render::RenderOptions;
use crate::examples::views::ViewPolicy;
use crate::read::{OnBadRow, Rejects};
use crate::row::ignored::Ignored;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What to do with a view that is longer than the longest sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnTooLong {
    /// It is a bad row.
    #[default]
    Fail,
    /// Leave it out and count it.
    Drop,
    /// Keep the messages that fit whole, and count it; leave it out where nothing trained would remain.
    CutAtMessage,
}

/// How a data set is prepared.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct PrepareOptions {
    /// Date, effort, identity.
    pub render: RenderOptions,
    /// What one training example is.
    pub views: ViewPolicy,
    /// Which tokens are trained.
    pub mask: MaskPolicy,
    /// What they count for.
    pub weights: LossWeights,
    /// The longest sequence; no limit when absent.
    pub max_tokens: Option<usize>,
    /// What to do with a longer one.
    pub on_too_long: OnTooLong,
    /// What to do with a row that cannot be rendered, and with a view in which nothing is trained.
    pub on_bad_row: OnBadRow,
}

/// One training example.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The row it came from, as [`Row::number`](crate::read::Row::number).
    pub row: u64,
    /// The assistant message it teaches; `None` for a whole row.
    pub message: Option<usize>,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// The loss weight and class of each.
    pub mask: LossMask,
    /// Index of the first token of its first reasoning, when that is trained.
    pub first_reasoning: Option<usize>,
    /// The language that the reasoning is meant to be in.
    pub reasoning_language: Option<String>,
    /// SHA-256 of what a trainer sees of it: ids, weights and first reasoning.
    pub hash: [u8; 32],
    /// What it has in common with the examples that begin with the same prompt, in this row and in all others.
    pub group: u64,
}

/// What became of the rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Rows that were prepared.
    pub rows: u64,
    /// Views that they gave.
    pub views: u64,
    /// Views that repeated an earlier one and were left out.
    pub duplicates: u64,
    /// Views that were too long and were left out.
    pub dropped: u64,
    /// Views that were cut.
    pub cut: u64,
    /// Views in which nothing was trained, left out.
    pub empty: u64,
    /// Rows that could not be read or rendered.
    pub rejects: Rejects,
    /// Keys that were not used.
    pub ignored: Ignored,
    /// Tokens of the examples by class.
    pub tokens: ClassCounts,
    /// The same by reasoning language, where rows state one.
    pub by_language: BTreeMap<String, ClassCounts>,
    /// Examples by the language that their rows state, and what their reasoning is in.
    #[serde(skip)]
    pub languages: Vec<LanguageShare>,
}

impl Account {
    /// The tokens of one class.
    pub fn of(&self, class: TokenClass) -> ClassCount {
        self.tokens.of(class)
    }

    /// Adds what became of the rows of another data set.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.views += other.views;
        self.duplicates += other.duplicates;
        self.dropped += other.dropped;
        self.cut += other.cut;
        self.empty += other.empty;
        self.rejects.merge(&other.rejects);
        self.ignored.merge(&other.ignored);
        self.tokens.add(&other.tokens);
        for (language, counts) in &other.by_language {
            self.by_language.entry(language.clone()).or_default().add(counts);
        }
        for share in &other.languages {
            match self.languages.iter_mut().find(|known| known.stated == share.stated) {
                Some(known) => known.add(share),
                None => self.languages.push(share.clone()),
            }
        }
        self.languages.sort_by(|a, b| a.stated.cmp(&b.stated));
    }
}
