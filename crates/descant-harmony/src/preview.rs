//! What a person should see of a data set before training on it, as values.
//!
//! Which tokens are trained, how long the rows are, which channels and which reasoning languages the tokens belong to.
//! Nothing is printed here and nothing is coloured: the command line does that, with or without a terminal.

use crate::error::Result;
use crate::header::Channel;
use crate::mask::{ClassCounts, LossMask, TokenClass};
use crate::parse::parse_conversation;
use crate::prepare::Example;
use crate::tokenizer::{TextEncoder, Tokenizer};
use serde::Serialize;
use std::collections::BTreeMap;
use whatlang::{Detector, Lang};

/// Neighbouring tokens of one class that are all trained or all not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What they are part of.
    pub class: TokenClass,
    /// Whether they are trained.
    pub trained: bool,
    /// Index of the first.
    pub from: usize,
    /// One past the last.
    pub to: usize,
    /// Their text, special tokens included.
    pub text: String,
}

/// The runs of a row, in order. Their texts joined are the row's text.
///
/// # Errors
/// When the tokenizer fails.
pub fn runs(tokenizer: &Tokenizer, ids: &[u32], mask: &LossMask) -> Result<Vec<Run>> {
    let kinds: Vec<(TokenClass, bool)> = mask.classes.iter().copied().zip(mask.bits()).collect();
    let mut runs: Vec<Run> = Vec::new();
    let mut from = 0;
    for kind in kinds.chunk_by(|a, b| a == b) {
        let to = (from + kind.len()).min(ids.len());
        let text = tokenizer.decode(&ids[from..to])?;
        runs.push(Run { class: kind[0].0, trained: kind[0].1, from, to, text });
        from = to;
    }
    Ok(runs)
}

/// How long rows are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// The shortest.
    pub min: usize,
    /// Half of the rows are at most this long.
    pub median: usize,
    /// 95 of 100 rows are at most this long.
    pub p95: usize,
    /// The longest.
    pub max: usize,
    /// Buckets of equal width from 0 on: the first length past the bucket, and how many rows are in it.
    pub buckets: Vec<(usize, u64)>,
}

impl Lengths {
    /// Summarises lengths in at most `buckets` buckets; `None` for no rows.
    pub fn of(lengths: impl IntoIterator<Item = usize>, buckets: usize) -> Option<Self> {
        let mut sorted: Vec<usize> = lengths.into_iter().collect();
        sorted.sort_unstable();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        // The row at which a share of all rows is reached.
        let reached = |share: usize| sorted[(sorted.len() * share).div_ceil(100).max(1) - 1];
        let width = round_width((max + 1).div_ceil(buckets.max(1)));
        let mut counts: Vec<(usize, u64)> = (1..=max / width + 1).map(|bucket| (bucket * width, 0)).collect();
        for length in &sorted {
            counts[length / width].1 += 1;
        }
        Some(Self { min, median: reached(50), p95: reached(95), max, buckets: counts })
    }
}

/// The next width that reads well: 1, 2 or 5 times a power of ten.
fn round_width(width: usize) -> usize {
    let mut unit = 1;
    loop {
        for factor in [1, 2, 5] {
            if unit * factor >= width {
                return unit * factor;
            }
        }
        unit *= 10;
    }
}

/// A text with fewer characters than this is in no language that can be told from its letters alone.
pub const JUDGED_CHARS: usize = 120;

/// Tells the language of reasoning, or says that it cannot.
///
/// For reports over real data. Short formulaic texts are beyond it, which is why it may say so.
#[derive(Debug)]
pub struct LanguageJudge {
    detector: Detector,
}

impl LanguageJudge {
    /// A judge that knows only the languages with these English names, and English; names it does not know are passed
    /// over. Without any name it knows all of its languages.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        let mut allowed: Vec<Lang> = names.into_iter().filter_map(language).collect();
        if allowed.is_empty() {
            return Self { detector: Detector::new() };
        }
        allowed.push(Lang::Eng);
        allowed.sort_unstable_by_key(Lang::code);
        allowed.dedup();
        Self { detector: Detector::with_allowlist(allowed) }
    }

    /// The English name of a text's language; `None` when the text is too short or the answer not sure.
    pub fn judge(&self, text: &str) -> Option<&'static str> {
        if text.chars().count() < JUDGED_CHARS {
            return None;
        }
        let info = self.detector.detect(text)?;
        info.is_reliable().then(|| info.lang().eng_name())
    }
}

/// Examples whose rows state one language, and what their reasoning is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LanguageShare {
    /// The language that the rows state; absent where they state none.
    pub stated: Option<String>,
    /// How many examples there are.
    pub examples: u64,
    /// Their tokens by class.
    pub tokens: ClassCounts,
    /// Examples by the language that their reasoning was found to be in.
    pub found: BTreeMap<&'static str, u64>,
    /// Examples with reasoning whose language cannot be told.
    pub unsure: u64,
    /// Examples without reasoning.
    pub without: u64,
}

/// Examples by the language that their rows state, those that state none first.
///
/// # Errors
/// When the tokenizer fails.
pub fn languages(tokenizer: &Tokenizer, examples: &[Example]) -> Result<Vec<LanguageShare>> {
    let stated = examples.iter().filter_map(|example| example.reasoning_language.as_deref());
    let judge = LanguageJudge::new(stated);
    let mut shares: BTreeMap<Option<&str>, LanguageShare> = BTreeMap::new();
    for example in examples {
        let stated = example.reasoning_language.as_deref();
        let share = shares.entry(stated).or_default();
        share.examples += 1;
        share.tokens.add(&example.mask.counts());
        match reasoning(tokenizer, &example.ids)? {
            None => share.without += 1,
            Some(text) => match judge.judge(&text) {
                Some(language) => *share.found.entry(language).or_insert(0) += 1,
                None => share.unsure += 1,
            },
        }
    }
    let named = |(stated, share): (Option<&str>, LanguageShare)| LanguageShare {
        stated: stated.map(str::to_owned),
        ..share
    };
    Ok(shares.into_iter().map(named).collect())
}

/// The reasoning in a row, all of it; `None` without any.
fn reasoning(tokenizer: &Tokenizer, ids: &[u32]) -> Result<Option<String>> {
    let messages = parse_conversation(tokenizer, ids)?.messages;
    let analyses = messages.iter().filter(|message| message.header.channel == Some(Channel::Analysis));
    let texts: Vec<String> =
        analyses.map(|message| tokenizer.decode(&ids[message.content()])).collect::<Result<_>>()?;
    Ok((!texts.is_empty()).then(|| texts.join("\n")))
}

fn language(name: &str) -> Option<Lang> {
    let name = if name.eq_ignore_ascii_case("chinese") { "Mandarin" } else { name };
    Lang::all().iter().copied().find(|language| language.eng_name().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_summarised_in_buckets_that_read_well() {
        let lengths = Lengths::of([135, 235, 150, 150, 199], 5).unwrap();
        assert_eq!((lengths.min, lengths.median, lengths.p95, lengths.max), (135, 150, 235, 235));
        assert_eq!(lengths.buckets, [(50, 0), (100, 0), (150, 1), (200, 3), (250, 1)]);
        assert_eq!(Lengths::of([], 5), None);
        assert_eq!(Lengths::of([0], 5).unwrap().buckets, [(1, 1)]);
        let many = Lengths::of(1..=100, 10).unwrap();
        assert_eq!((many.median, many.p95), (50, 95));
        assert_eq!(many.buckets.iter().map(|(_, count)| count).sum::<u64>(), 100);
    }

    #[test]
    fn a_language_is_told_from_enough_text_and_not_from_little() {
        let judge = LanguageJudge::new(["French", "German", "Spanish", "Italian", "Chinese", "Klingon"]);
        let french = "Il faut d'abord calculer combien de pommes restent dans le panier après que Marie en a donné la \
                      moitié à son frère, puis ajouter celles qu'elle a achetées.";
        let english = "First we have to work out how many apples are left in the basket after Mary gave half of them \
                       to her brother, and then add those that she bought.";
        assert_eq!((judge.judge(french), judge.judge(english)), (Some("French"), Some("English")));
        assert_eq!(judge.judge("Il faut additionner."), None);
        assert_eq!(LanguageJudge::new([]).judge(french), Some("French"));
    }
}
