//! From a data set to training examples, with an account of everything that was left out.
//!
//! Rows are rendered in parallel and taken in the file's order, so the result does not depend on the number of
//! threads. What is dropped (a row that fails, a view that repeats another, one that is too long or in which nothing is
//! trained) is either an error or counted, as asked; never neither.

use crate::error::{Error, Result};
use crate::examples::languages::{LanguageShare, Languages};
use crate::examples::mask::{ClassCounts, LossMask, LossWeights, MaskPolicy, Masker, TokenClass};
use crate::examples::render::{RenderOptions, Renderer};
use crate::examples::rendered::Rendered;
use crate::examples::views::{View, ViewPolicy};
use crate::messages::parse::MessageSpan;
use crate::read::{DataSet, OnBadRow, Rejects};
use crate::row::body::Row;
use crate::row::channel::Channel;
use crate::row::conversation::Role;
use crate::row::ignored::{Ignored, Place};
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
    /// Index of the first token of its first reasoning, when that is trained.
    pub first_reasoning: Option<usize>,
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
    let mut sink = Sink::default();
    sink.account.rejects = set.rejects.clone();
    sink.account.ignored = set.ignored.clone();
    for (row, views) in set.rows.iter().zip(views) {
        match views.and_then(|fates| settle(fates, options.on_bad_row)) {
            Ok(fates) => {
                sink.account.rows += 1;
                sink.account.ignored.merge(&row.ignored);
                if options.mask != MaskPolicy::Everything {
                    weights_without_effect(row, &mut sink.account.ignored);
                }
                for fate in fates {
                    sink.take(row, fate);
                }
            }
            Err(error) if options.on_bad_row == OnBadRow::Fail => {
                let (file, number) = set.place(row.number);
                return Err(error.in_row(file, number));
            }
            Err(error) => sink.account.rejects.add(row.number, &error),
        }
    }
    Ok(sink.finish())
}

/// Weights that ask for what this mask does not train.
fn weights_without_effect(row: &Row, ignored: &mut Ignored) {
    let messages = row.conversation().map_or(&[][..], |conversation| &conversation.messages);
    for message in messages {
        if message.role != Role::Assistant && message.weight.is_some_and(|weight| weight > 0.0) {
            ignored.add(Place::Message, &format!("weight of {}", message.role));
        }
    }
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

/// Takes what becomes of views, in the rows' order.
#[derive(Default)]
struct Sink {
    examples: Vec<Example>,
    account: Account,
    languages: Languages,
    seen: BTreeSet<u128>,
}

impl Sink {
    fn take(&mut self, row: &Row, fate: Fate) {
        self.account.views += 1;
        let (view, mask, cut) = match fate {
            Fate::Dropped => return self.account.dropped += 1,
            Fate::Empty(_) => return self.account.empty += 1,
            Fate::Kept { view, mask, cut } => (view, mask, cut),
        };
        let key = fingerprint(&view.rendered.ids, &mask);
        if !self.seen.insert(key) {
            return self.account.duplicates += 1;
        }
        self.account.cut += u64::from(cut);
        let counts = mask.counts();
        self.account.tokens.add(&counts);
        let stated = row.reasoning_language.as_deref();
        self.languages.add(stated, &counts, reasoning(&view.rendered).as_deref(), key);
        if let Some(language) = &row.reasoning_language {
            self.account.by_language.entry(language.clone()).or_default().add(&counts);
        }
        self.examples.push(Example {
            row: row.number,
            message: view.message,
            first_reasoning: first_reasoning(&view.rendered, &mask),
            ids: view.rendered.ids,
            mask,
            reasoning_language: row.reasoning_language.clone(),
        });
    }

    fn finish(mut self) -> Prepared {
        self.account.rejects.first.sort_by_key(|reject| reject.number);
        self.account.languages = self.languages.finish();
        Prepared { examples: self.examples, account: self.account }
    }
}

fn analyses(rendered: &Rendered) -> impl Iterator<Item = &MessageSpan> {
    let is_analysis = |message: &&MessageSpan| {
        message.header.role == Role::Assistant && message.header.channel == Some(Channel::Analysis)
    };
    rendered.messages.iter().filter(is_analysis)
}

/// The reasoning in a row, all of it; `None` without any.
fn reasoning(rendered: &Rendered) -> Option<String> {
    let texts: Vec<&str> = analyses(rendered).map(|message| rendered.content(message)).collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

fn first_reasoning(rendered: &Rendered, mask: &LossMask) -> Option<usize> {
    let first = analyses(rendered).next()?.body;
    mask.weights.get(first).is_some_and(|weight| *weight > 0.0).then_some(first)
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
            OnTooLong::CutAtMessage => view.rendered = view.rendered.up_to(limit),
        }
    }
    match masker.mask(&view.rendered, view.trained_from) {
        Ok(mask) => Ok(Fate::Kept { view, mask, cut }),
        Err(Error::EmptyMask { .. }) if cut => Ok(Fate::Dropped),
        Err(error @ Error::EmptyMask { .. }) => Ok(Fate::Empty(error)),
        Err(error) => Err(error),
    }
}

/// What makes two views the same: their tokens and what is trained of them.
fn fingerprint(ids: &[u32], mask: &LossMask) -> u128 {
    let mut hash = Sha256::new();
    for (id, weight) in ids.iter().zip(&mask.weights) {
        hash.update(id.to_le_bytes());
        hash.update(weight.to_le_bytes());
    }
    let hash = hash.finalize();
    u128::from_le_bytes(*hash.first_chunk().expect("SHA-256 has 32 bytes"))
}

impl Account {
    /// The tokens of one class.
    pub fn of(&self, class: TokenClass) -> crate::examples::mask::ClassCount {
        self.tokens.of(class)
    }
}
