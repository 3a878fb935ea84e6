//! Verdicts, counted: one cell for each effort and each thing that was asked.
//!
//! Counts are kept, percentages computed, so that cells of several runs can be added.

use serde::{Deserialize, Serialize};

use super::language::Language;
use super::reply::Verdict;

/// What the prompts of a cell asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Asked {
    /// No language: English is expected.
    Nothing,
    /// Each prompt its own language, all together.
    Any,
    /// This language.
    Language(Language),
}

/// How many analyses were in which language. The sum is the number of replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Found {
    /// English.
    pub(super) en: u64,
    /// French.
    pub(super) fr: u64,
    /// Spanish.
    pub(super) es: u64,
    /// German.
    pub(super) de: u64,
    /// Italian.
    pub(super) it: u64,
    /// Valid Harmony without a known word.
    pub(super) unsure: u64,
    /// No valid Harmony.
    pub(super) invalid: u64,
}

impl Found {
    /// Count of one language.
    pub(super) fn of(&self, language: Language) -> u64 {
        match language {
            Language::English => self.en,
            Language::French => self.fr,
            Language::Spanish => self.es,
            Language::German => self.de,
            Language::Italian => self.it,
        }
    }

    fn slot(&mut self, language: Option<Language>) -> &mut u64 {
        match language {
            Some(Language::English) => &mut self.en,
            Some(Language::French) => &mut self.fr,
            Some(Language::Spanish) => &mut self.es,
            Some(Language::German) => &mut self.de,
            Some(Language::Italian) => &mut self.it,
            None => &mut self.unsure,
        }
    }
}

/// Counts over the replies to one kind of prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cell {
    /// Reasoning effort of the prompts.
    pub(super) effort: String,
    /// What the prompts asked for.
    pub(super) asked: Asked,
    /// Replies.
    pub(super) n: u64,
    /// Replies that are valid Harmony.
    pub(super) valid: u64,
    /// Languages of the analyses.
    pub(super) found: Found,
    /// Analyses in the language asked; in English where none was.
    pub(super) hit: u64,
    /// Finals that are English and end on the right number.
    pub(super) right: u64,
    /// Replies that are both.
    pub(super) both: u64,
    /// Analyses whose written steps are all true.
    pub(super) true_steps: u64,
    /// Tokens of all valid analyses together.
    pub(super) analysis_tokens: u64,
}

impl Cell {
    /// An empty cell.
    pub(super) fn new(effort: &str, asked: Asked) -> Self {
        Self {
            effort: effort.to_owned(),
            asked,
            n: 0,
            valid: 0,
            found: Found::default(),
            hit: 0,
            right: 0,
            both: 0,
            true_steps: 0,
            analysis_tokens: 0,
        }
    }

    /// Counts one more reply.
    pub(super) fn add(&mut self, verdict: Verdict) {
        self.n += 1;
        match verdict {
            Verdict::Invalid => self.found.invalid += 1,
            Verdict::Valid { found, hit, right, true_steps, analysis_tokens } => {
                self.valid += 1;
                *self.found.slot(found) += 1;
                self.hit += u64::from(hit);
                self.right += u64::from(right);
                self.both += u64::from(hit && right);
                self.true_steps += u64::from(true_steps);
                self.analysis_tokens += analysis_tokens as u64;
            }
        }
    }

    /// `count` as percent of the replies; 0 when there are none.
    pub(super) fn percent(&self, count: u64) -> f64 {
        100.0 * count as f64 / self.n.max(1) as f64
    }

    /// Mean length of the valid analyses in tokens; 0 when there are none.
    pub(super) fn mean_analysis_tokens(&self) -> f64 {
        self.analysis_tokens as f64 / self.valid.max(1) as f64
    }
}

/// All cells of one evaluation, in the order they were asked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Evaluation {
    /// One for each effort and each thing asked.
    pub(super) cells: Vec<Cell>,
}

impl Evaluation {
    /// The cell of this effort and question, if it was asked.
    pub(super) fn cell(&self, effort: &str, asked: Asked) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.effort == effort && cell.asked == asked)
    }

    /// Counts a reply in its cell, which is made when it is the first.
    pub(super) fn add(&mut self, effort: &str, asked: Asked, verdict: Verdict) {
        let at = self.cells.iter().position(|cell| cell.effort == effort && cell.asked == asked);
        let at = at.unwrap_or_else(|| {
            self.cells.push(Cell::new(effort, asked));
            self.cells.len() - 1
        });
        self.cells[at].add(verdict);
    }
}
