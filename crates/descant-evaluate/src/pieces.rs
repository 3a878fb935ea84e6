//! A text in pieces that each vote for one language: sentences, cut again where the script changes, and joined again
//! where they are too short to be distinguished.

use std::collections::BTreeMap;

use crate::chars::{MARK, script};

/// A piece lighter than this is joined with its neighbour of the same script.
pub(crate) const JOIN: u64 = 30;
/// From this weight on, letters of another script in a sentence vote for themselves.
const FOREIGN: u64 = 15;

/// Letters of one script group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) weight: u64,
    /// `Latin`, `CJK`, another script by its name, or `Other`.
    pub(crate) group: &'static str,
}

/// What a letter weighs: a character of Han says about as much as three of Latin.
fn weight(script: &str) -> u64 {
    match script {
        "Han" => 3,
        "Hiragana" | "Katakana" | "Hangul" => 2,
        _ => 1,
    }
}

fn group_of(script: &'static str) -> &'static str {
    if matches!(script, "Han" | "Hiragana" | "Katakana") { "CJK" } else { script }
}

/// What all letters of a text weigh in the judge's votes: a character of Han as much as three of Latin.
pub fn letters_weight(text: &str) -> u64 {
    letters(text).values().sum()
}

/// Weight of the letters of each script.
pub(crate) fn letters(text: &str) -> BTreeMap<&'static str, u64> {
    let mut count = BTreeMap::new();
    for script in text.chars().filter_map(script) {
        *count.entry(script).or_insert(0) += weight(script);
    }
    count
}

fn grouped(text: &str) -> BTreeMap<&'static str, u64> {
    let mut count = BTreeMap::new();
    for (script, weight) in letters(text) {
        *count.entry(group_of(script)).or_insert(0) += weight;
    }
    count
}

/// Cuts at newlines, behind stops that need no space, and behind stops before a space, the end, or a closing mark.
pub fn sentences(text: &str) -> Vec<&str> {
    let is_stop = |c: char| matches!(c, '.' | '!' | '?' | '…' | '؟');
    let is_full_stop = |c: char| matches!(c, '。' | '！' | '？' | '।' | '॥');
    let mut out = Vec::new();
    let mut start = 0;
    let mut rest = text.char_indices().peekable();
    let mut push = |end: usize| {
        if !text[start..end].trim().is_empty() {
            out.push(&text[start..end]);
        }
        start = end;
    };
    while let Some((at, c)) = rest.next() {
        let run: fn(char) -> bool = match c {
            '\n' => {
                push(at + 1);
                continue;
            }
            c if is_full_stop(c) => |c| matches!(c, '。' | '！' | '？' | '।' | '॥'),
            c if is_stop(c) => |c| matches!(c, '.' | '!' | '?' | '…' | '؟'),
            _ => continue,
        };
        while rest.next_if(|(_, c)| run(*c)).is_some() {}
        let end = rest.peek().map_or(text.len(), |(at, _)| *at);
        let closes = |c: char| c.is_whitespace() || matches!(c, '*' | '_' | ')' | ']');
        if is_full_stop(c) || rest.peek().is_none_or(|(_, next)| closes(*next)) {
            push(end);
        }
    }
    push(text.len());
    out
}

/// The text with letters of other groups blanked; a mark stays with the letter before it.
fn of_group(text: &str, group: &str) -> String {
    let mut keep = true;
    let kept = |c: char| {
        match script(c) {
            Some(script) => keep = group_of(script) == group,
            None if !MARK.has(c) => keep = true,
            None => {}
        }
        if keep { c } else { ' ' }
    };
    text.chars().map(kept).collect()
}

/// All pieces of a text, in order.
pub(crate) fn pieces(text: &str) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::new();
    for sentence in sentences(text) {
        let count = grouped(sentence);
        let Some((&main, _)) = count.iter().max_by_key(|(group, weight)| (**weight, **group)) else {
            continue;
        };
        let mut order: Vec<(&'static str, u64)> =
            count.iter().map(|(group, weight)| (*group, *weight)).collect();
        order.sort_by_key(|(group, _)| (*group != main, *group));
        for (group, weight) in
            order.into_iter().filter(|(group, weight)| *group == main || *weight >= FOREIGN)
        {
            let text = if count.len() == 1 { sentence.to_owned() } else { of_group(sentence, group) };
            match joined.last_mut() {
                Some(last) if last.group == group && last.weight < JOIN => last.take(&text, weight),
                _ => joined.push(Piece { text, weight, group }),
            }
        }
    }
    // A short last one of its script goes to the one before.
    for at in (1..joined.len()).rev() {
        if joined[at].weight < JOIN && joined[at - 1].group == joined[at].group {
            let short = joined.remove(at);
            joined[at - 1].take(&short.text, short.weight);
        }
    }
    joined
}

impl Piece {
    fn take(&mut self, text: &str, weight: u64) {
        self.text.push(' ');
        self.text += text;
        self.weight += weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_where_they_end() {
        for (text, expected) in [
            ("One. Two! 3.14 is pi? Yes", vec!["One.", " Two!", " 3.14 is pi?", " Yes"]),
            ("a.\nb\n\nc", vec!["a.", "b\n", "c"]),
            ("一。二！三", vec!["一。", "二！", "三"]),
            ("**Bold.** next...more... end.", vec!["**Bold.", "** next...more...", " end."]),
            ("", vec![]),
        ] {
            let found: Vec<&str> = sentences(text);
            assert_eq!(
                found.iter().map(|s| s.trim_end_matches('\n')).collect::<Vec<_>>(),
                expected.iter().map(|s| s.trim_end_matches('\n')).collect::<Vec<_>>(),
                "{text}"
            );
        }
    }

    #[test]
    fn short_neighbours_of_one_script_are_joined() {
        let found = pieces("Yes. No. A much longer sentence that stands on its own feet. Да. Ok.");
        assert_eq!(
            found.iter().map(|p| (p.group, p.weight)).collect::<Vec<_>>(),
            [("Latin", 46), ("Cyrillic", 2), ("Latin", 2),]
        );
    }

    #[test]
    fn a_longer_stretch_of_another_script_votes_for_itself() {
        let of = |text: &str| pieces(text).iter().map(|p| (p.group, p.weight)).collect::<Vec<_>>();
        assert_eq!(of("The word привет means hello here"), [("Latin", 21)]);
        assert_eq!(of("The words сегодня хорошая погода mean this"), [("Cyrillic", 20), ("Latin", 16)]);
    }
}
