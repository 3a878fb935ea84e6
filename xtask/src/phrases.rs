//! Phrases that `cargo xtask spelling` rejects: English that readers of this field stumble over, each with a plain
//! form.
//!
//! codespell finds words that are not English; this finds words that are, in sentences that are not. It reads tracked
//! pages, settings and sources, and knows nothing of grammar: a phrase is here because it came up again and again.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A phrase in lower case, and what to write instead.
const PHRASES: [(&str, &str); 37] = [
    ("goes on after", "continues after"),
    ("goes on as", "continues as"),
    ("goes on while", "continues while"),
    ("goes on with", "continues with, or resumes"),
    ("goes on where", "continues where, or resumes"),
    ("the run goes on", "the run continues"),
    ("go on", "continue, or resume"),
    ("went on", "continued, or resumed"),
    ("gone on", "continued, or resumed"),
    ("told apart", "distinguished"),
    ("is told", "is given, is reported, or knows"),
    ("are told", "are given, are reported, or know"),
    ("was told", "was given, was reported, or was asked"),
    ("were told", "were given, were reported, or were asked"),
    ("be told", "be given, be reported, or be known"),
    ("not tell", "not report, or not distinguish"),
    ("tell them apart", "distinguish them"),
    ("held against", "compared with"),
    ("are held in", "are in, or are kept in"),
    ("stands beside", "is next to"),
    ("stand beside", "are next to"),
    ("stands first", "comes first"),
    ("stands there", "is there"),
    ("stands in the way", "is in the way"),
    ("stands for itself", "is used as it is"),
    ("stands by itself", "is separate"),
    ("stands alone", "is alone"),
    ("stands twice", "occurs twice"),
    ("as it stands", "unchanged"),
    ("where it stands", "where it is"),
    ("how often it stands", "how often it occurs"),
    ("without a word", "silently"),
    ("in good time", "early enough"),
    ("as they are meant", "correctly"),
    ("the answer is no", "the result is negative"),
    ("one's choice", "a choice of yours"),
    ("keys there are", "known keys"),
];
/// "It is no number" is "it is not a number" for this reader. What may follow "is no" all the same.
const AFTER_NO: [&str; 14] = [
    "better", "bigger", "doubt", "fewer", "greater", "higher", "larger", "less", "longer", "lower", "more",
    "shorter", "slower", "smaller",
];
const NO: [&str; 4] = ["is no", "are no", "was no", "were no"];
/// Where texts are read, from the root.
const READ: [&str; 9] = [
    "README.md",
    "CONTRIBUTING.md",
    "THIRD-PARTY.md",
    "docs",
    "crates",
    "xtask",
    "scripts",
    "recipes",
    "book.toml",
];
/// Endings of names of texts.
const ENDINGS: [&str; 8] = ["md", "rs", "toml", "py", "cu", "cuh", "sh", "html"];
/// Not read: this list.
const PASSED_OVER: [&str; 1] = ["xtask/src/phrases.rs"];

/// Every phrase of the list in the texts under `root`, as `FILE:LINE: PHRASE: write INSTEAD`.
pub(crate) fn find(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for name in READ {
        collect(&root.join(name), &mut files)?;
    }
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        if PASSED_OVER.contains(&name.as_str()) || name.contains("fixtures") {
            continue;
        }
        let text = std::fs::read_to_string(&file).with_context(|| name.clone())?;
        found.extend(in_file(&name, &text));
    }
    Ok(found)
}

/// The phrases of one file.
fn in_file(name: &str, text: &str) -> Vec<String> {
    let line = |(line, phrase, instead)| format!("{name}:{line}: `{phrase}`: write {instead}");
    phrases(text).map(line).collect()
}

/// The texts at `path`: itself, or those below it.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
            let path = entry?.path();
            if path.file_name().is_none_or(|name| name != "target") {
                collect(&path, files)?;
            }
        }
    } else if path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known)) {
        files.push(path.to_owned());
    }
    Ok(())
}

/// Phrases in a text with their lines from 1. A phrase counts as whole words, in any case, and across a break of lines.
fn phrases(text: &str) -> impl Iterator<Item = (usize, &'static str, &'static str)> {
    let lower = text.to_lowercase();
    // A word and its line; punctuation is a word of no letters, so that `Go::On` and "is: no" are not phrases.
    let mut words: Vec<(usize, &str)> = Vec::new();
    let is_word = |c: char| c.is_alphanumeric() || "-'_".contains(c);
    for (line, text) in lower.lines().enumerate() {
        let text = text.trim_start().trim_start_matches(['/', '!', '#', '*']);
        for run in text.split_whitespace() {
            let pieces =
                run.split_inclusive(|c| !is_word(c)).map(|piece| piece.trim_end_matches(|c| !is_word(c)));
            for (at, word) in pieces.enumerate() {
                if at > 0 || word.is_empty() {
                    words.push((line + 1, ""));
                }
                words.extend((!word.is_empty()).then_some((line + 1, word)));
            }
            if run.ends_with(|c| !is_word(c)) {
                words.push((line + 1, ""));
            }
        }
    }
    let mut found = Vec::new();
    for (phrase, instead) in PHRASES {
        let wanted: Vec<&str> = phrase.split(' ').collect();
        for window in words.windows(wanted.len()) {
            if window.iter().map(|(_, word)| *word).eq(wanted.iter().copied()) {
                found.push((window[0].0, phrase, instead));
            }
        }
    }
    for (at, window) in words.windows(3).enumerate() {
        let [(line, verb), (_, "no"), (_, noun)] = window else { continue };
        let Some(phrase) = NO.iter().find(|phrase| phrase.strip_suffix(" no") == Some(*verb)) else {
            continue;
        };
        // "There is no file" is plain English.
        let after_there = at > 0 && words[at - 1].1 == "there";
        if !after_there && !AFTER_NO.contains(noun) {
            found.push((*line, phrase, "is not a, is not"));
        }
    }
    found.sort_unstable();
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_is_found_in_its_line_also_across_a_break_and_its_words_elsewhere_are_not() {
        let found = |text: &str| phrases(text).map(|(line, phrase, _)| (line, phrase)).collect::<Vec<_>>();
        assert_eq!(
            found("a\n// The run goes\n// on with the next step."),
            [(2, "goes on with"), (2, "the run goes on")]
        );
        assert_eq!(found("`Is no number`, and they are no numbers."), [(1, "are no"), (1, "is no")]);
        assert_eq!(found("a value that was no\n/// finite one"), [(1, "was no")]);
        for good in [
            "there is no numbering, and there are no files",
            "it is no longer there and no worse",
            "is no_number",
            "is told_apart",
            "Go::On, Go(on) and go: on",
            "fn a_key_that_stands_twice()",
        ] {
            assert_eq!(found(good), [], "{good}");
        }
    }

    #[test]
    fn a_file_with_a_phrase_fails_and_without_it_passes() {
        let found = in_file("docs/page.md", "A loss that is\nno number ends the run.\n");
        assert_eq!(found, ["docs/page.md:1: `is no`: write is not a, is not"]);
        assert_eq!(in_file("docs/page.md", "A non-finite loss ends the run.\n"), Vec::<String>::new());
    }
}
