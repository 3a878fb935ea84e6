//! From a data set to training examples, with an account of everything that was left out.
//!
//! Rows are rendered in parallel and taken in the file's order, so the result does not depend on the number of
//! threads. What is dropped (a row that fails, a view that repeats another, one that is too long or in which nothing is
//! trained) is either an error or counted, as asked; never neither.

use crate::error::{Error, Result};
use crate::mask::{ClassCounts, LossMask, LossWeights, MaskPolicy, Masker, TokenClass};
use crate::read::{DataSet, OnBadRow, Rejects, Row};
use crate::render::{RenderOptions, Renderer};
use crate::views::{View, ViewPolicy};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// What to do with a view that is longer than the longest sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// What of a conversation is trained together.
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
    /// The row it came from, as [`Row::number`].
    pub row: u64,
    /// The assistant message it teaches; `None` for a whole row.
    pub message: Option<usize>,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// The loss weight and class of each.
    pub mask: LossMask,
    /// The language that the reasoning is meant to be in.
    pub reasoning_language: Option<String>,
}

/// What became of the rows.
#[derive(Debug, Default, Serialize)]
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
    /// Rows that could not be rendered.
    pub rejects: Rejects,
    /// Tokens of the examples by class.
    pub tokens: ClassCounts,
    /// The same by reasoning language, where rows state one.
    pub by_language: BTreeMap<String, ClassCounts>,
}

/// A prepared data set.
#[derive(Debug)]
pub struct Prepared {
    /// The examples, in the file's order.
    pub examples: Vec<Example>,
    /// What became of the rows.
    pub account: Account,
}

/// Prepares a data set.
///
/// # Errors
/// At the first bad row under [`OnBadRow::Fail`]; [`Error::NothingLeft`] when no example remains.
pub fn prepare(renderer: &Renderer, set: &DataSet, options: &PrepareOptions) -> Result<Prepared> {
    let prepared = survey(renderer, set, options)?;
    if prepared.examples.is_empty() {
        return Err(Error::NothingLeft { path: set.path.clone() });
    }
    Ok(prepared)
}

/// As [`prepare`], for looking at a data set: that no example remains is an answer too.
///
/// # Errors
/// At the first bad row under [`OnBadRow::Fail`].
pub fn survey(renderer: &Renderer, set: &DataSet, options: &PrepareOptions) -> Result<Prepared> {
    let masker = Masker::new(renderer.tokenizer(), options.mask, options.weights)?;
    let views: Vec<Result<Vec<Fate>>> =
        set.rows.par_iter().map(|row| row_views(renderer, &masker, row, options)).collect();
    let mut prepared = Prepared { examples: Vec::new(), account: Account::default() };
    let mut seen = BTreeSet::new();
    for (row, views) in set.rows.iter().zip(views) {
        match views.and_then(|fates| settle(fates, options.on_bad_row)) {
            Ok(fates) => {
                prepared.account.rows += 1;
                for fate in fates {
                    prepared.take(row, fate, &mut seen);
                }
            }
            Err(error) if options.on_bad_row == OnBadRow::Fail => {
                let (file, number) = set.place(row.number);
                return Err(error.in_row(file, number));
            }
            Err(error) => prepared.account.rejects.add(row.number, error),
        }
    }
    Ok(prepared)
}

/// What becomes of one view.
enum Fate {
    Kept { view: View, mask: LossMask, cut: bool },
    Dropped,
    Empty(Error),
}

/// An empty view is an error where bad rows are.
fn settle(fates: Vec<Fate>, on_bad_row: OnBadRow) -> Result<Vec<Fate>> {
    fates
        .into_iter()
        .map(|fate| match fate {
            Fate::Empty(error) if on_bad_row == OnBadRow::Fail => Err(error),
            other => Ok(other),
        })
        .collect()
}

impl Prepared {
    fn take(&mut self, row: &Row, fate: Fate, seen: &mut BTreeSet<[u8; 32]>) {
        self.account.views += 1;
        let (view, mask, cut) = match fate {
            Fate::Dropped => return self.account.dropped += 1,
            Fate::Empty(_) => return self.account.empty += 1,
            Fate::Kept { view, mask, cut } => (view, mask, cut),
        };
        if !seen.insert(fingerprint(&view.rendered.ids, &mask)) {
            return self.account.duplicates += 1;
        }
        self.account.cut += u64::from(cut);
        let counts = mask.counts();
        self.account.tokens.add(&counts);
        if let Some(language) = &row.reasoning_language {
            self.account.by_language.entry(language.clone()).or_default().add(&counts);
        }
        self.examples.push(Example {
            row: row.number,
            message: view.message,
            ids: view.rendered.ids,
            mask,
            reasoning_language: row.reasoning_language.clone(),
        });
    }
}

fn row_views(renderer: &Renderer, masker: &Masker, row: &Row, options: &PrepareOptions) -> Result<Vec<Fate>> {
    let views = renderer.views(&row.body, &options.render, options.views)?;
    views.into_iter().map(|view| fate(masker, view, options)).collect()
}

fn fate(masker: &Masker, mut view: View, options: &PrepareOptions) -> Result<Fate> {
    let tokens = view.rendered.ids.len();
    let limit = options.max_tokens.unwrap_or(usize::MAX);
    let cut = tokens > limit;
    if cut {
        match options.on_too_long {
            OnTooLong::Fail => return Err(Error::TooLong { tokens, limit }),
            OnTooLong::Drop => return Ok(Fate::Dropped),
            OnTooLong::CutAtMessage => cut_at_message(&mut view, limit),
        }
    }
    match masker.mask(&view.rendered, view.trained_from) {
        Ok(mask) => Ok(Fate::Kept { view, mask, cut }),
        Err(Error::EmptyMask { .. }) if cut => Ok(Fate::Dropped),
        Err(error @ Error::EmptyMask { .. }) => Ok(Fate::Empty(error)),
        Err(error) => Err(error),
    }
}

/// Keeps the messages that end within the limit.
fn cut_at_message(view: &mut View, limit: usize) {
    let rendered = &mut view.rendered;
    rendered.messages.retain(|message| message.end <= limit);
    rendered.ids.truncate(rendered.messages.last().map_or(0, |message| message.end));
    rendered.prompt = None;
    // The text is no longer what the ids say; examples do not carry it.
    rendered.text.clear();
}

/// What makes two views the same: their tokens and what is trained of them.
fn fingerprint(ids: &[u32], mask: &LossMask) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (id, weight) in ids.iter().zip(&mask.weights) {
        hash.update(id.to_le_bytes());
        hash.update(weight.to_le_bytes());
    }
    hash.finalize().into()
}

impl Account {
    /// The tokens of one class.
    pub fn of(&self, class: TokenClass) -> crate::mask::ClassCount {
        self.tokens.of(class)
    }
}
