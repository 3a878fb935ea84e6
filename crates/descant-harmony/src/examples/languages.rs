//! Which languages the reasoning of a data set is in, beside those that its rows state.
//!
//! Telling a language costs more than tokenizing the text. So of a large set as many examples as are needed for shares
//! are looked at, chosen by their content: the same ones each time, whatever the order of the rows.

use crate::examples::mask::ClassCounts;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use whatlang::{Detector, Lang};

/// Most examples whose reasoning is looked at.
pub const JUDGED_EXAMPLES: usize = 10_000;
/// Most bytes of a reasoning that are looked at.
pub(crate) const JUDGED_BYTES: usize = 8192;
/// A text with fewer characters than this is in no language that its letters alone can identify.
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanguageShare {
    /// The language that the rows state; absent where they state none.
    pub stated: Option<String>,
    /// How many examples there are.
    pub examples: u64,
    /// Their tokens by class.
    pub tokens: ClassCounts,
    /// Examples whose reasoning was looked at; all that have some, unless there are more than [`JUDGED_EXAMPLES`].
    pub judged: u64,
    /// Examples by the language that their reasoning was found to be in.
    pub found: BTreeMap<String, u64>,
    /// Examples with reasoning whose language cannot be identified.
    pub unsure: u64,
    /// Examples without reasoning.
    pub without: u64,
}

impl LanguageShare {
    /// Adds those of another data set.
    pub(crate) fn add(&mut self, other: &Self) {
        self.examples += other.examples;
        self.tokens.add(&other.tokens);
        self.judged += other.judged;
        self.unsure += other.unsure;
        self.without += other.without;
        for (language, count) in &other.found {
            *self.found.entry(language.clone()).or_insert(0) += count;
        }
    }
}

/// Gathers the examples of a data set.
#[derive(Debug, Default)]
pub(crate) struct Languages {
    shares: BTreeMap<Option<String>, LanguageShare>,
    /// By a key of the content: who states what, and the reasoning. The smallest keys stay.
    chosen: BTreeMap<u128, (Option<String>, String)>,
}

impl Languages {
    /// Adds an example with the beginning of its reasoning; `key` is made of its content.
    pub(crate) fn add(
        &mut self,
        stated: Option<&str>,
        counts: &ClassCounts,
        reasoning: Option<String>,
        key: u128,
    ) {
        let stated = stated.map(str::to_owned);
        let share = self.shares.entry(stated.clone()).or_default();
        share.examples += 1;
        share.tokens.add(counts);
        let Some(reasoning) = reasoning else {
            share.without += 1;
            return;
        };
        let full = self.chosen.len() == JUDGED_EXAMPLES;
        if full && self.chosen.last_key_value().is_some_and(|(last, _)| *last < key) {
            return;
        }
        if full {
            self.chosen.pop_last();
        }
        self.chosen.insert(key, (stated, reasoning));
    }

    /// Examples by the language that their rows state, those that state none first.
    pub(crate) fn finish(self) -> Vec<LanguageShare> {
        let Self { mut shares, chosen } = self;
        let judge = LanguageJudge::new(shares.keys().flatten().map(String::as_str));
        let chosen: Vec<(Option<String>, String)> = chosen.into_values().collect();
        let found: Vec<(Option<String>, Option<&'static str>)> =
            chosen.into_par_iter().map(|(stated, text)| (stated, judge.judge(&text))).collect();
        for (stated, language) in found {
            let share = shares.entry(stated).or_default();
            share.judged += 1;
            match language {
                Some(language) => *share.found.entry(language.to_owned()).or_insert(0) += 1,
                None => share.unsure += 1,
            }
        }
        shares.into_iter().map(|(stated, share)| LanguageShare { stated, ..share }).collect()
    }
}

fn language(name: &str) -> Option<Lang> {
    let name = if name.eq_ignore_ascii_case("chinese") { "Mandarin" } else { name };
    Lang::all().iter().copied().find(|language| language.eng_name().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn of_many_examples_the_same_ones_are_looked_at_in_any_order() {
        let add = |keys: &mut dyn Iterator<Item = u128>| {
            let mut languages = Languages::default();
            let text = |key: u128| format!("{key} ").repeat(40);
            keys.for_each(|key| languages.add(None, &ClassCounts::default(), Some(text(key)), key));
            let kept: Vec<u128> = languages.chosen.keys().copied().collect();
            (kept, languages.finish())
        };
        let most = JUDGED_EXAMPLES as u128 + 500;
        let (kept, shares) = add(&mut (0..most));
        assert_eq!(kept, (0..JUDGED_EXAMPLES as u128).collect::<Vec<_>>());
        assert_eq!((shares[0].examples, shares[0].judged), (most as u64, JUDGED_EXAMPLES as u64));
        assert_eq!(add(&mut (0..most).rev()).1, shares);
    }
}
