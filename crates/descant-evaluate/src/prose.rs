//! What of a text its writer wrote in a language: everything but code, formulas, links, names of things, quotations
//! and copies of the prompt.
//!
//! A reply that reasons in French about an English task quotes it; without this the quotation would vote.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use regex::Regex;

use crate::chars::{LETTER, MARK, NUMBER, UNSPACED, WORD, fold};

/// Longest formula between single dollars, in characters.
const FORMULA: usize = 200;
/// Words in a row, and characters where words are not spaced, that make a copy of the prompt.
const COPY_WORDS: usize = 8;
const COPY_CHARACTERS: usize = 20;

/// What may be before and behind a span that is blanked.
#[derive(Clone, Copy)]
enum Guard {
    /// Anything.
    Free,
    /// Nothing of a word before it.
    NoWordBefore,
    /// When it begins with `"`: no letter and no digit before it or behind it.
    StraightQuotes,
    /// Its inside is no longer than a formula is.
    Formula,
}

/// Spans that are not prose, in the order they are blanked.
static SPANS: LazyLock<Vec<(Regex, Guard)>> = LazyLock::new(|| {
    let quotes = concat!(
        r"“[^”\n]{1,400}”|„[^“”\n]{1,400}[“”]|«[^»\n]{1,400}»|»[^«\n]{1,400}«|",
        r#"「[^」\n]{1,400}」|『[^』\n]{1,400}』|"[^"\n]{1,400}""#
    );
    let spans: [(&str, Guard); 16] = [
        (r"(?s)```.*?(?:```|\z)", Guard::Free),
        (r"(?s)~~~.*?(?:~~~|\z)", Guard::Free),
        (r"`[^`\n]+`", Guard::Free),
        (r"(?s)\$\$.*?\$\$", Guard::Free),
        (r"(?s)\\\[.*?\\\]", Guard::Free),
        (r"(?s)\\\(.*?\\\)", Guard::Free),
        (r"\$[^$\n]*[\\^_={}][^$\n]*\$", Guard::Formula),
        (r"(?:https?://|www\.)\S+", Guard::Free),
        (r"[\w.+-]+@[\w-]+\.[\w.]+", Guard::Free),
        (r"(?:~|\.{1,2})?(?:/[\w.-]+){2,}/?", Guard::NoWordBefore),
        (r"<[/!]?[A-Za-z][^<>\n]{0,80}>", Guard::Free),
        (r"\\[A-Za-z]+", Guard::Free),
        (r"\b[\p{L}\d]+(?:[_.][\p{L}\d]+)+\b", Guard::Free),
        (r"\b\p{Ll}+\p{Lu}\w*\b", Guard::Free),
        (r"\b\w+\(\)", Guard::Free),
        (quotes, Guard::StraightQuotes),
    ];
    spans
        .into_iter()
        .map(|(p, guard)| (Regex::new(p).expect("patterns written here are valid"), guard))
        .collect()
});

impl Guard {
    fn allows(self, text: &str, start: usize, end: usize) -> bool {
        let (before, behind) = (text[..start].chars().next_back(), text[end..].chars().next());
        let in_word = |c: Option<char>| c.is_some_and(|c| LETTER.has(c) || NUMBER.has(c));
        match self {
            Self::Free => true,
            Self::NoWordBefore => !before.is_some_and(|c| WORD.has(c)),
            Self::StraightQuotes => !text[start..].starts_with('"') || !(in_word(before) || in_word(behind)),
            Self::Formula => text[start + 1..end - 1].chars().count() <= FORMULA,
        }
    }
}

/// Every span of a kind becomes one space.
fn blank(text: &str, pattern: &Regex, guard: Guard) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut kept, mut at) = (0, 0);
    while let Some(found) = pattern.find_at(text, at) {
        if guard.allows(text, found.start(), found.end()) {
            out += &text[kept..found.start()];
            out.push(' ');
            kept = found.end();
            at = found.end();
        } else {
            at = found.start() + text[found.start()..].chars().next().map_or(1, char::len_utf8);
        }
    }
    out + &text[kept..]
}

/// The text with everything blanked that is not its writer's own prose. `prompt` is the text of all its messages.
pub(crate) fn own_words(text: &str, prompt: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, guard) in SPANS.iter() {
        text = blank(&text, pattern, *guard);
    }
    without_copies(&text, prompt)
}

/// A word, or one character where words are not spaced.
struct Unit {
    folded: String,
    /// Range of characters.
    start: usize,
    end: usize,
}

fn units(text: &[char]) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let start = at;
        let in_word = |c: char| LETTER.has(c) || MARK.has(c) || NUMBER.has(c);
        if UNSPACED.has(text[at]) {
            at += 1;
        } else if in_word(text[at]) {
            while at < text.len() && in_word(text[at]) && !UNSPACED.has(text[at]) {
                at += 1;
            }
        } else {
            at += 1;
            continue;
        }
        let word: String = text[start..at].iter().collect();
        units.push(Unit { folded: fold(&word), start, end: at });
    }
    units
}

/// Blanks runs that are in the prompt too.
fn without_copies(text: &str, prompt: &str) -> String {
    let mut out: Vec<char> = text.chars().collect();
    let (have, given) = (units(&out), units(&prompt.chars().collect::<Vec<_>>()));
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let given: Vec<usize> = given
        .iter()
        .map(|unit| {
            let next = numbers.len() + 1;
            *numbers.entry(unit.folded.as_str()).or_insert(next)
        })
        .collect();
    // A word that the prompt does not have is number 0, which no run of the prompt has.
    let had: Vec<usize> = have.iter().map(|u| numbers.get(u.folded.as_str()).copied().unwrap_or(0)).collect();
    let is_unspaced: Vec<bool> =
        have.iter().map(|unit| unit.folded.chars().next().is_some_and(|c| UNSPACED.has(c))).collect();
    let mut gone = vec![false; have.len()];
    for size in [COPY_WORDS, COPY_CHARACTERS] {
        let runs: HashSet<&[usize]> = given.windows(size).collect();
        for (at, run) in had.windows(size).enumerate() {
            let spaced = is_unspaced[at..at + size].iter().filter(|is| !**is).count() * 2 > size;
            if spaced == (size == COPY_WORDS) && runs.contains(run) {
                gone[at..at + size].fill(true);
            }
        }
    }
    for (unit, _) in have.iter().zip(gone).filter(|(_, gone)| *gone) {
        out[unit.start..unit.end].fill(' ');
    }
    out.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, prompt: &str) -> String {
        own_words(text, prompt).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_no_prose_is_blanked() {
        for (text, left) in [
            ("a ```rust\nlet x;\n``` b", "a b"),
            ("a ```never closed", "a"),
            ("it costs $5 and $6 today", "it costs $5 and $6 today"),
            ("so $x^2 = 4$ holds", "so holds"),
            ("see https://a.b/c d", "see d"),
            ("in ./src/lib.rs now", "in now"),
            ("and/or/not", "and/or/not"),
            ("call snake_case and camelCase and run() here", "call and and here"),
            ("he said “bonjour à tous” then", "he said then"),
            ("an \"exact quote\" here", "an here"),
            ("5\"long\"er", "5\"long\"er"),
            ("„Guten Tag“ he", "he"),
        ] {
            assert_eq!(words(text, ""), left, "{text}");
        }
    }

    #[test]
    fn a_formula_between_dollars_is_short() {
        let of = |length: usize| format!("a ${}^$ b", "x".repeat(length - 1));
        assert_eq!(words(&of(FORMULA), ""), "a b");
        assert_ne!(words(&of(FORMULA + 1), ""), "a b");
    }

    #[test]
    fn copies_of_the_prompt_are_blanked_and_shorter_runs_stay() {
        let prompt = "One two three four five SIX seven eight nine.";
        assert_eq!(words("so: one two three four five six seven eight. done", prompt), "so: . done");
        assert_eq!(words("one two three four five six seven", prompt), "one two three four five six seven");
        let han = "我们今天去学校学习数学和语文然后回家做饭吃";
        assert_eq!(words(han, han), "");
        let short: String = han.chars().take(COPY_CHARACTERS - 1).collect();
        assert_eq!(words(&short, han), short);
    }
}
