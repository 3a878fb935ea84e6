//! Verdicts, counted: one cell for each effort and each thing that was asked.
//!
//! Counts only, so that cells of several runs can be added; percentages are made where they are shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::judge::Verdict;
use crate::languages::Language;
use crate::reading::{Analysis, End};
use crate::samples::Key;

/// What became of the reasoning, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reasoning {
    /// There, with words.
    pub present: u64,
    /// There, without.
    pub empty: u64,
    /// Not there.
    pub missing: u64,
    /// Cut.
    pub truncated: u64,
}

/// Counts over the replies to one kind of prompt.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cell {
    /// Reasoning effort of the prompts.
    pub effort: String,
    /// `none`, `any`, or the code of a language.
    pub asked: String,
    /// Replies.
    pub n: u64,
    /// Replies that are valid Harmony.
    pub valid: u64,
    /// The others, by what is wrong with them.
    pub defects: BTreeMap<String, u64>,
    /// Replies that ended.
    pub ended: u64,
    /// Replies that were caught in a loop.
    pub looped: u64,
    /// Replies that were cut.
    pub cut: u64,
    /// What became of the reasoning.
    pub analysis: Reasoning,
    /// Language of the reasoning: a code, `mixed`, `unsure`, `other`, or `none` where it was not judged. Sums to `n`.
    pub found: BTreeMap<String, u64>,
    /// Reasoning in the language asked.
    pub hit: u64,
    /// Replies of which right or wrong is judged.
    pub scored: u64,
    /// Right ones.
    pub right: u64,
    /// Right ones that reasoned.
    pub right_present: u64,
    /// Judged ones that reasoned.
    pub scored_present: u64,
    /// Replies whose answer should have a language.
    pub answer_asked: u64,
    /// Answers in that language.
    pub answer_hit: u64,
    /// Replies that ended and reasoned: those whose lengths are compared.
    pub reasoned: u64,
    /// Tokens of their reasoning.
    pub analysis_tokens: u64,
}

impl Cell {
    /// Counts these verdicts.
    pub fn count<'v>(effort: &str, asked: &str, verdicts: impl IntoIterator<Item = &'v Verdict>) -> Self {
        let mut cell = Self { effort: effort.to_owned(), asked: asked.to_owned(), ..Self::default() };
        verdicts.into_iter().for_each(|verdict| cell.add(verdict));
        cell
    }

    fn add(&mut self, verdict: &Verdict) {
        self.n += 1;
        if verdict.harmony == "valid" {
            self.valid += 1;
        } else {
            *self.defects.entry(verdict.harmony.to_owned()).or_insert(0) += 1;
        }
        *match verdict.end {
            End::Ended => &mut self.ended,
            End::Looped => &mut self.looped,
            End::Cut => &mut self.cut,
        } += 1;
        let present = verdict.analysis == Analysis::Present;
        *match verdict.analysis {
            Analysis::Present => &mut self.analysis.present,
            Analysis::Empty => &mut self.analysis.empty,
            Analysis::Missing => &mut self.analysis.missing,
            Analysis::Truncated => &mut self.analysis.truncated,
        } += 1;
        *self.found.entry(verdict.reasoning_language.unwrap_or("none").to_owned()).or_insert(0) += 1;
        self.hit += u64::from(verdict.hit);
        if let Some(right) = verdict.right {
            self.scored += 1;
            self.right += u64::from(right);
            self.scored_present += u64::from(present);
            self.right_present += u64::from(right && present);
        }
        if let Some(hit) = verdict.answer_hit {
            self.answer_asked += 1;
            self.answer_hit += u64::from(hit);
        }
        if verdict.reasoned() {
            self.reasoned += 1;
            self.analysis_tokens += verdict.analysis_tokens as u64;
        }
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        let maps = [(&mut self.defects, &other.defects), (&mut self.found, &other.found)];
        for (mine, theirs) in maps {
            for (key, count) in theirs {
                *mine.entry(key.clone()).or_insert(0) += count;
            }
        }
        let counts = [
            (&mut self.n, other.n),
            (&mut self.valid, other.valid),
            (&mut self.ended, other.ended),
            (&mut self.looped, other.looped),
            (&mut self.cut, other.cut),
            (&mut self.analysis.present, other.analysis.present),
            (&mut self.analysis.empty, other.analysis.empty),
            (&mut self.analysis.missing, other.analysis.missing),
            (&mut self.analysis.truncated, other.analysis.truncated),
            (&mut self.hit, other.hit),
            (&mut self.scored, other.scored),
            (&mut self.right, other.right),
            (&mut self.right_present, other.right_present),
            (&mut self.scored_present, other.scored_present),
            (&mut self.answer_asked, other.answer_asked),
            (&mut self.answer_hit, other.answer_hit),
            (&mut self.reasoned, other.reasoned),
            (&mut self.analysis_tokens, other.analysis_tokens),
        ];
        for (mine, theirs) in counts {
            *mine += theirs;
        }
    }

    /// Mean length of the reasoning that is compared, in tokens.
    pub fn mean_tokens(&self) -> Option<f64> {
        (self.reasoned > 0).then(|| self.analysis_tokens as f64 / self.reasoned as f64)
    }
}

/// All verdicts of one side.
pub type Verdicts = BTreeMap<Key, Verdict>;

/// A cell for each effort and each of nothing asked, anything asked, and each language.
pub(crate) fn cells(verdicts: &Verdicts, efforts: &[String]) -> Vec<Cell> {
    let mut codes: Vec<&str> = verdicts.values().filter_map(|v| v.asked).map(Language::code).collect();
    codes.sort_unstable();
    codes.dedup();
    let mut cells = Vec::new();
    for effort in efforts {
        for asked in ["none", "any"].into_iter().chain(codes.iter().copied()) {
            let belongs = |(key, verdict): &(&Key, &Verdict)| {
                key.effort == *effort
                    && match asked {
                        "none" => !key.asked,
                        "any" => key.asked,
                        code => key.asked && verdict.asked.is_some_and(|language| language.code() == code),
                    }
            };
            let cell =
                Cell::count(effort, asked, verdicts.iter().filter(belongs).map(|(_, verdict)| verdict));
            if cell.n > 0 {
                cells.push(cell);
            }
        }
    }
    cells
}
