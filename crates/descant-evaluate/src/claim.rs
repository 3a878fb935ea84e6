//! What a final claims: one number, the real roots of an equation, or one letter of several.
//!
//! The places where people and models put their answer are tried in order; the first that holds one decides.

use std::sync::LazyLock;

use fancy_regex::Regex as Looking;
use num_rational::BigRational;
use num_traits::Signed as _;
use regex::Regex;

use crate::chars::first;
use crate::number::{Found, Numbers, numbers};

/// Farthest from the word for "answer" that its number may be, in characters.
const NEAR: usize = 60;
/// The same for a letter.
const NEAR_LETTER: usize = 40;

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("patterns written here are valid")
}

fn looking(text: &str) -> Looking {
    Looking::new(text).expect("patterns written here are valid")
}

/// "Answer" and "result" in fifteen languages.
static ANSWER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        "(?i)(?:answer|result|réponse|résultat|antwort|ergebnis|respuesta|resultado|risposta|risultato|resposta|",
        "antwoord|ответ|jibu|答案|答え|回答|答|উত্তর|คำตอบ|సమాధానం|जवाब|उत्तर|답|الجواب|الإجابة)"
    ))
});
static BOXED: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\boxed\s*\{"));
static HASHES: LazyLock<Regex> = LazyLock::new(|| pattern(r"####\s*([^\n]+)"));
static BOLD: LazyLock<Regex> = LazyLock::new(|| pattern(r"\*\*([^*\n]{1,120})\*\*"));
static SHORT_BOLD: LazyLock<Regex> = LazyLock::new(|| pattern(r"\*\*([^*\n]{1,80})\*\*"));
static SENTENCE_END: LazyLock<Regex> = LazyLock::new(|| pattern(r"[.!?。！？।\n]\s"));
static LINE_END: LazyLock<Regex> = LazyLock::new(|| pattern(r"[\n。]|\.\s|\.$"));

/// Contents of every `\boxed{...}`, braces counted.
fn boxed(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    for opening in BOXED.find_iter(text) {
        let inside = &text[opening.end()..];
        let mut depth = 1_usize;
        for (at, c) in inside.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                out.push(&inside[..at]);
                break;
            }
        }
    }
    out
}

fn captured<'t>(pattern: &Regex, text: &'t str) -> Vec<&'t str> {
    pattern.captures_iter(text).filter_map(|found| found.get(1)).map(|inside| inside.as_str()).collect()
}

/// Readings of the number that a final claims; `None` when it has none.
pub(crate) fn number(text: &str) -> Option<Vec<BigRational>> {
    let last_of = |part: &str| numbers(part).found.pop().map(|found| found.readings);
    let in_bold = || captured(&BOLD, text).into_iter().rev().find_map(last_of);
    boxed(text)
        .last()
        .copied()
        .and_then(last_of)
        .or_else(|| captured(&HASHES, text).last().copied().and_then(last_of))
        .or_else(in_bold)
        .or_else(|| in_sentences(&numbers(text)))
}

/// The number behind the last word for "answer", else the last.
fn in_sentences(numbers: &Numbers) -> Option<Vec<BigRational>> {
    let Numbers { text, found } = numbers;
    let last = found.last()?;
    let named = ANSWER.find_iter(text).last().and_then(|word| {
        let behind = found.iter().position(|found| found.start >= word.end())?;
        let start = found[behind].start;
        let between = &text[word.end()..start];
        let near = between.chars().count() <= NEAR && !SENTENCE_END.is_match(between);
        near.then(|| after_equals(text, &found[behind..]))
    });
    Some(named.unwrap_or(last).readings.clone())
}

/// Of an equation, the side behind its last `=`.
fn after_equals<'f>(text: &str, behind: &'f [Found]) -> &'f Found {
    let start = behind[0].start;
    let line = LINE_END.split(&text[start..]).next().unwrap_or_default();
    let equals = line.rfind('=').map(|at| start + at);
    equals.and_then(|at| behind.iter().find(|found| found.start >= at)).unwrap_or(&behind[0])
}

static ROOT: LazyLock<Looking> = LazyLock::new(|| {
    looking(r"(?<![\p{L}\\])(?:x(?:_\{?\d\}?|[₀-₉])?|\p{L}_\{?\d\}?)\s*(?:=|≈|\\approx|\\simeq|≃|~|:)\s*")
});
static NOT_REAL: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\s?(?:i\b|\*?\s?i\b|±)"));

/// What a final says about the real roots of an equation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roots {
    /// Roots that are in it.
    pub(crate) found: usize,
    /// Numbers that it calls a root and that are none.
    pub(crate) wrong: usize,
}

/// Looks for the roots of an equation among the real numbers of a final.
pub(crate) fn roots(text: &str, wanted: &[BigRational], tolerance: &BigRational) -> Roots {
    let Numbers { text, found } = numbers(text);
    let is_real = |found: &&Found| {
        !NOT_REAL.is_match(first(&text[found.end..], 4)) && !is_behind_plus_minus(&text[..found.start])
    };
    let real: Vec<&Found> = found.iter().filter(is_real).collect();
    let is_near = |found: &Found, root: &BigRational| {
        found.readings.iter().any(|reading| (reading - root).abs() <= *tolerance)
    };
    let starts: Vec<usize> = ROOT.find_iter(&text).map_while(Result::ok).map(|found| found.end()).collect();
    let is_claim = |found: &&&Found| starts.iter().any(|at| (found.start..=found.end).contains(at));
    let is_none = |found: &&&Found| !wanted.iter().any(|root| is_near(found, root));
    Roots {
        found: wanted.iter().filter(|root| real.iter().any(|found| is_near(found, root))).count(),
        wrong: real.iter().filter(is_claim).filter(is_none).count(),
    }
}

fn is_behind_plus_minus(before: &str) -> bool {
    before.strip_suffix(char::is_whitespace).unwrap_or(before).ends_with('±')
}

static LETTER_FIRST: LazyLock<Looking> =
    LazyLock::new(|| looking(r"\A\W*(?:\\text\{)?\(?([A-J])(?![\p{L}])"));
static LETTER_ALONE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\A\W*([A-Ja-j])\W*\z"));
static LETTER_BEHIND: LazyLock<Looking> = LazyLock::new(|| looking(r"(?<![\p{L}])\(?([A-J])(?![\p{L}'’])"));
static LETTER_LISTED: LazyLock<Regex> = LazyLock::new(|| pattern(r"\A\W*\(?([A-J])[).:]"));
static LETTER_IN_BRACKETS: LazyLock<Regex> = LazyLock::new(|| pattern(r"\(([A-J])\)"));

/// The letter that a final chooses.
pub(crate) fn choice(text: &str) -> Option<String> {
    let seen = |pattern: &Looking, text: &str| {
        pattern.captures(text).ok().flatten().and_then(|c| c.get(1)).map(|letter| letter.as_str().to_owned())
    };
    let found = |pattern: &Regex| captured(pattern, text).first().map(|letter| letter.to_uppercase());
    let marked = [boxed(text).last().copied(), captured(&SHORT_BOLD, text).last().copied()];
    marked
        .into_iter()
        .flatten()
        .find_map(|part| seen(&LETTER_FIRST, part))
        .or_else(|| found(&LETTER_ALONE))
        .or_else(|| {
            let word = ANSWER.find_iter(text).last()?;
            seen(&LETTER_BEHIND, first(&text[word.end()..], NEAR_LETTER))
        })
        .or_else(|| found(&LETTER_LISTED))
        .or_else(|| {
            let mut letters = captured(&LETTER_IN_BRACKETS, text);
            letters.sort_unstable();
            letters.dedup();
            (letters.len() == 1).then(|| letters[0].to_owned())
        })
}
