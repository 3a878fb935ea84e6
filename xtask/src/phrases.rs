//! Phrases that `cargo xtask spelling` rejects: English that readers of this field stumble over, each with a plain form.
//!
//! codespell finds words that are not English; this finds words that are, in sentences that are not. It reads tracked
//! pages, settings and sources, and knows nothing of grammar: a phrase is here because it came up again and again.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A phrase in lower case, and what to write instead.
const PHRASES: [(&str, &str); 22] = [
    ("goes on with the", "continues with the"),
    ("go on with", "continue with"),
    ("gone on with", "resumed"),
    ("goes on where", "resumes where"),
    ("is no number", "is not a number, or is non-finite"),
    ("was no number", "was non-finite"),
    ("are no numbers", "are not numbers"),
    ("is no terminal", "is not a terminal"),
    ("is no file", "is not a file"),
    ("is no folder", "is not a folder"),
    ("is no text", "is not text"),
    ("is no utf-8", "is not UTF-8"),
    ("is no url", "is not a URL"),
    ("is no export", "is not an export"),
    ("told apart", "distinguished"),
    ("stands beside", "is next to"),
    ("stands twice", "occurs twice"),
    ("stands there twice", "is listed twice"),
    ("without a word", "silently"),
    ("in good time", "early enough"),
    ("as they are meant", "correctly"),
    ("the answer is no", "the result is negative"),
];
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
const ENDINGS: [&str; 4] = ["md", "rs", "toml", "py"];
/// Places that are not read: this list, and what was written elsewhere or long ago.
const PASSED_OVER: [&str; 2] = ["xtask/src/phrases.rs", "docs/benchmarks.md"];

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
    let mut words: Vec<(usize, &str)> = Vec::new();
    for (line, text) in lower.lines().enumerate() {
        let word = |c: char| c.is_alphanumeric() || "-'_".contains(c);
        let text = text.trim_start().trim_start_matches(['/', '!', '#', '*']);
        words.extend(text.split(|c| !word(c)).filter(|word| !word.is_empty()).map(|word| (line + 1, word)));
    }
    let mut found = Vec::new();
    for (phrase, instead) in PHRASES {
        let wanted: Vec<&str> = phrase.split(' ').collect();
        for (at, window) in words.windows(wanted.len()).enumerate() {
            let is_there = window.iter().map(|(_, word)| *word).eq(wanted.iter().copied());
            // "There is no file" is plain English.
            let after_there = at > 0 && words[at - 1].1 == "there";
            if is_there && !after_there {
                found.push((window[0].0, phrase, instead));
            }
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
        assert_eq!(found("a\n// The run goes\n// on with the next step."), [(2, "goes on with the")]);
        assert_eq!(found("`Is no number`, and is no number."), [(1, "is no number"), (1, "is no number")]);
        for good in [
            "the run goes on without it",
            "there is no numbering",
            "is no_number",
            "fn a_key_that_stands_twice()",
        ] {
            assert_eq!(found(good), [], "{good}");
        }
    }

    #[test]
    fn a_file_with_a_phrase_fails_and_without_it_passes() {
        let found = in_file("docs/page.md", "A loss that is\nno number ends the run.\n");
        assert_eq!(found, ["docs/page.md:1: `is no number`: write is not a number, or is non-finite"]);
        assert_eq!(in_file("docs/page.md", "A non-finite loss ends the run.\n"), Vec::<String>::new());
    }
}
