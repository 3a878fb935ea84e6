//! The language of a text: a vote of its pieces, each for one language, weighed by letters.
//!
//! Never given what was asked for. Latin languages are distinguished by statistics, all others by their script and,
//! where a script is shared, by letters that only one language has.

use std::collections::BTreeMap;

use crate::chars::composed;
use crate::languages::Language;
use crate::latin::Latin;
use crate::pieces::{JOIN, Piece, letters, pieces};
use crate::prose::own_words;

/// Language of more than this share of the decided weight is the text's.
const SHARE: f64 = 0.6;
/// Confidence that decides a piece, and all Latin pieces together with `LEAD` times the second's.
const SURE: f64 = 0.5;
const SURE_WHOLE: f64 = 0.25;
const LEAD: f64 = 1.2;
/// Least decided weight, of a Latin language and of another.
const LEAST_LATIN: u64 = 8;
const LEAST: u64 = 4;
/// Letters that none of the eight Latin languages writes, beside those from U+1EA0 to U+1EF9.
const ELSEWHERE: &str = "ąćčďđęěğıłńňőřśşșšťțůűźżžăåøðþāēīūģķļņėįųươ";
/// One such letter in this weight, or more, says that a piece is in another language.
const PER_ELSEWHERE: u64 = 40;
const CYRILLIC_ELSEWHERE: &str = "іїєґўІЇЄҐЎ";
const PER_CYRILLIC: u64 = 100;
const ARABIC_ELSEWHERE: &str = "پچگژٹڈڑےیک";
const PER_ARABIC: u64 = 50;
/// One kana in this weight of Han and kana, or more, is Japanese.
const PER_KANA: u64 = 12;

/// What a text was found to be written in.
#[derive(Debug, Clone, PartialEq)]
pub struct Spoken {
    /// A code, `other`, `mixed`, or `unsure`.
    pub verdict: &'static str,
    /// Share of the decided letters, largest first, rounded to four places.
    pub shares: Vec<(&'static str, f64)>,
}

/// Finds languages.
#[derive(Debug)]
pub struct Detector {
    latin: Latin,
}

/// Whether texts in Latin letters can be distinguished in this build.
pub const TELLS_LATIN_APART: bool = cfg!(feature = "languages");

impl Detector {
    /// One for these languages, or for all when there are none. Only Latin languages are narrowed: a script is
    /// recognized in any case.
    pub fn new(languages: &[Language]) -> Self {
        let all: Vec<Language> = Language::all().collect();
        Self { latin: Latin::new(if languages.is_empty() { &all } else { languages }) }
    }

    /// The language that the writer of `text` writes in, what is copied from the prompt left out.
    pub fn language(&self, text: &str, prompt: &str) -> Spoken {
        let pieces = pieces(&own_words(text, prompt));
        let joined: String = pieces.iter().map(|piece| piece.text.as_str()).collect::<Vec<_>>().join(" ");
        let whole_is_japanese = is_japanese(&joined);
        let total: u64 = pieces.iter().map(|piece| piece.weight).sum();
        let mut votes: BTreeMap<&'static str, u64> = BTreeMap::new();
        for piece in &pieces {
            if let Some(found) = self.of_piece(piece, whole_is_japanese) {
                *votes.entry(found).or_insert(0) += piece.weight;
            }
        }
        if 2 * votes.values().sum::<u64>() < total {
            self.all_latin_at_once(&pieces, &mut votes);
        }
        verdict(&votes, total)
    }

    fn of_piece(&self, piece: &Piece, whole_is_japanese: bool) -> Option<&'static str> {
        let Piece { text, weight, group } = piece;
        let has =
            |set: &str, per: u64| text.chars().filter(|c| set.contains(*c)).count() as u64 * per >= *weight;
        match *group {
            "Latin" if is_elsewhere(text, *weight) => Some("other"),
            "Latin" => {
                self.latin.guess(text).filter(|best| best.confidence >= SURE).map(|best| best.language.code())
            }
            "CJK" if is_japanese(text) || (*weight < JOIN && whole_is_japanese) => Some("ja"),
            "CJK" => Some("zh"),
            "Cyrillic" if has(CYRILLIC_ELSEWHERE, PER_CYRILLIC) => Some("other"),
            "Arabic" if has(ARABIC_ELSEWHERE, PER_ARABIC) => Some("other"),
            script => Some(of_script(script)),
        }
    }

    /// Where too few pieces are sure: the Latin ones together, with less asked of them.
    fn all_latin_at_once(&self, pieces: &[Piece], votes: &mut BTreeMap<&'static str, u64>) {
        let latin = || pieces.iter().filter(|piece| piece.group == "Latin");
        let text: Vec<&str> = latin().map(|piece| piece.text.as_str()).collect();
        let Some(best) = self.latin.guess(&text.join(" ")) else { return };
        if best.confidence >= SURE_WHOLE && best.confidence >= LEAD * best.second {
            votes.retain(|code, _| !self.is_ours(code));
            votes.insert(best.language.code(), latin().map(|piece| piece.weight).sum());
        }
    }

    fn is_ours(&self, code: &str) -> bool {
        self.latin.languages.iter().any(|language| language.code() == code)
    }
}

/// What the votes say. Shares and verdict are of the decided weight alone.
fn verdict(votes: &BTreeMap<&'static str, u64>, total: u64) -> Spoken {
    let decided: u64 = votes.values().sum();
    let mut order: Vec<(&'static str, u64)> = votes.iter().map(|(code, weight)| (*code, *weight)).collect();
    order.sort_by_key(|(code, weight)| (std::cmp::Reverse(*weight), *code));
    let share = |(code, weight): &(&'static str, u64)| (*code, rounded(*weight as f64 / decided as f64));
    let shares: Vec<_> = if decided == 0 { Vec::new() } else { order.iter().map(share).collect() };
    let verdict = match order.first() {
        Some((code, weight)) if 2 * decided >= total => {
            let is_latin = Language::from_code(code).is_some_and(Language::is_latin);
            if decided < if is_latin { LEAST_LATIN } else { LEAST } {
                "unsure"
            } else if *weight as f64 > SHARE * decided as f64 {
                code
            } else {
                "mixed"
            }
        }
        _ => "unsure",
    };
    Spoken { verdict, shares }
}

/// To four places.
fn rounded(share: f64) -> f64 {
    format!("{share:.4}").parse().unwrap_or(share)
}

fn is_elsewhere(text: &str, weight: u64) -> bool {
    let is = |c: &char| ELSEWHERE.contains(*c) || ('\u{1ea0}'..='\u{1ef9}').contains(c);
    composed(text).to_lowercase().chars().filter(is).count() as u64 * PER_ELSEWHERE >= weight
}

/// Whether enough of Han and kana is kana.
fn is_japanese(text: &str) -> bool {
    let count = letters(text);
    let of = |script: &str| count.get(script).copied().unwrap_or(0);
    let kana = of("Hiragana") + of("Katakana");
    kana * PER_KANA >= kana + of("Han")
}

fn of_script(script: &str) -> &'static str {
    match script {
        "Cyrillic" => "ru",
        "Arabic" => "ar",
        "Devanagari" => "hi",
        "Bengali" => "bn",
        "Telugu" => "te",
        "Thai" => "th",
        "Hangul" => "ko",
        "Greek" => "el",
        "Hebrew" => "he",
        "Tamil" => "ta",
        "Gujarati" => "gu",
        "Gurmukhi" => "pa",
        "Kannada" => "kn",
        "Malayalam" => "ml",
        "Georgian" => "ka",
        "Armenian" => "hy",
        "Khmer" => "km",
        "Lao" => "lo",
        "Myanmar" => "my",
        "Sinhala" => "si",
        "Ethiopic" => "am",
        _ => "other",
    }
}
