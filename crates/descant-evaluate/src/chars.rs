//! What kind of character a character is: categories and scripts of Unicode, and the two folds that texts are
//! compared under.
//!
//! The classes are those of the `regex` engine, looked up once, so that a pattern and a loop over characters can never
//! disagree about what a letter is.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};
use unicode_normalization::UnicodeNormalization as _;

/// A set of characters, as ranges in order.
pub(crate) struct Set(Vec<(char, char)>);

impl Set {
    /// The set of a class as patterns write it.
    fn of(pattern: &str) -> Self {
        let hir = regex_syntax::parse(pattern).expect("classes written here are valid");
        let HirKind::Class(Class::Unicode(class)) = hir.kind() else {
            unreachable!("every pattern here is a class of more than one character")
        };
        Self(class.iter().map(|range| (range.start(), range.end())).collect())
    }

    /// Whether a character is in it.
    pub(crate) fn has(&self, c: char) -> bool {
        self.range(c).is_some()
    }

    fn range(&self, c: char) -> Option<(char, char)> {
        let after = self.0.partition_point(|(first, _)| *first <= c);
        self.0[..after].last().copied().filter(|(_, last)| c <= *last)
    }
}

/// Letters.
pub(crate) static LETTER: LazyLock<Set> = LazyLock::new(|| Set::of(r"\p{L}"));
/// Marks.
pub(crate) static MARK: LazyLock<Set> = LazyLock::new(|| Set::of(r"\p{M}"));
/// Numbers of every kind.
pub(crate) static NUMBER: LazyLock<Set> = LazyLock::new(|| Set::of(r"\p{N}"));
/// What is in words.
pub(crate) static WORD: LazyLock<Set> = LazyLock::new(|| Set::of(r"\w"));
/// Letters of Latin, for patterns that need them one by one.
pub(crate) static LATIN: LazyLock<Set> = LazyLock::new(|| Set::of(r"\p{Latin}"));
/// Letters of Cyrillic.
pub(crate) static CYRILLIC: LazyLock<Set> = LazyLock::new(|| Set::of(r"\p{Cyrillic}"));
/// Scripts that put no spaces between words.
pub(crate) static UNSPACED: LazyLock<Set> =
    LazyLock::new(|| Set::of(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"));
static DIGIT: LazyLock<Set> = LazyLock::new(|| Set::of(r"\p{Nd}"));

/// Scripts that are known by name, in the order they are tried.
pub(crate) const SCRIPTS: [&str; 25] = [
    "Cyrillic",
    "Arabic",
    "Devanagari",
    "Bengali",
    "Telugu",
    "Thai",
    "Hangul",
    "Greek",
    "Hebrew",
    "Tamil",
    "Gujarati",
    "Gurmukhi",
    "Kannada",
    "Malayalam",
    "Georgian",
    "Armenian",
    "Khmer",
    "Lao",
    "Myanmar",
    "Sinhala",
    "Ethiopic",
    "Han",
    "Hiragana",
    "Katakana",
    "Latin",
];
static OF_SCRIPT: LazyLock<Vec<Set>> =
    LazyLock::new(|| SCRIPTS.iter().map(|name| Set::of(&format!(r"\p{{{name}}}"))).collect());

/// The script that a letter or mark counts for; `Other` is a letter of a script that is not known by name. Marks that
/// many scripts share count for none, and neither does the Japanese sign for a long vowel.
pub(crate) fn script(c: char) -> Option<&'static str> {
    if c.is_ascii() {
        return c.is_ascii_alphabetic().then_some("Latin");
    }
    let is_mark = MARK.has(c);
    if !is_mark && !LETTER.has(c) {
        return None;
    }
    let known = OF_SCRIPT.iter().position(|set| set.has(c)).map(|at| SCRIPTS[at]);
    known.or((!is_mark && c != 'ー').then_some("Other"))
}

/// The value of a decimal digit of any script. Unicode keeps the ten of a script together, from 0.
pub(crate) fn digit(c: char) -> Option<u32> {
    if c.is_ascii() {
        return c.to_digit(10);
    }
    DIGIT.range(c).map(|(first, _)| (u32::from(c) - u32::from(first)) % 10)
}

/// Whether a text has a letter or a digit; marks and signs alone are nothing to judge.
pub(crate) fn has_words(text: &str) -> bool {
    text.chars().any(|c| LETTER.has(c) || NUMBER.has(c))
}

/// Full case folding: upper case first, so that `ß` and final sigma fold too. The Turkish dotless i stays itself.
pub(crate) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            'ı' => folded.push(c),
            _ if c.is_ascii() => folded.push(c.to_ascii_lowercase()),
            _ => folded.extend(c.to_uppercase().flat_map(char::to_lowercase)),
        }
    }
    folded
}

/// Composed form (NFC).
pub(crate) fn composed(text: &str) -> String {
    text.nfc().collect()
}

/// Compatibility form (NFKC).
pub(crate) fn compatible(text: &str) -> String {
    text.nfkc().collect()
}

/// The first characters of a text, at most `count`.
pub(crate) fn first(text: &str, count: usize) -> &str {
    text.char_indices().nth(count).map_or(text, |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_belong_to_scripts_and_shared_marks_to_none() {
        for (c, expected) in [
            ('a', Some("Latin")),
            ('é', Some("Latin")),
            ('ж', Some("Cyrillic")),
            ('漢', Some("Han")),
            ('か', Some("Hiragana")),
            ('ー', None),
            ('\u{301}', None),
            ('ि', Some("Devanagari")),
            ('µ', Some("Other")),
            ('ꯀ', Some("Other")),
            ('1', None),
            ('!', None),
        ] {
            assert_eq!(script(c), expected, "{c}");
        }
    }

    #[test]
    fn digits_of_every_script_have_values() {
        for (c, value) in [('7', 7), ('٣', 3), ('७', 7), ('৯', 9), ('９', 9), ('𝟘', 0), ('𝟿', 9), ('𝟗', 9)]
        {
            assert_eq!(digit(c), Some(value), "{c}");
        }
        assert_eq!((digit('½'), digit('x')), (None, None));
    }

    #[test]
    fn folding_is_full() {
        assert_eq!(fold("STRASSE Straße ΣΊΣΥΦΟΣ ﬁ İıI"), "strasse strasse σίσυφοσ fi i\u{307}ıi");
    }
}
