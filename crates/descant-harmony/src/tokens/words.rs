//! Remembers the ids of words, where the tokenizer is known to treat words one by one.
//!
//! The split pattern of gpt-oss never lets a token contain a space that follows something other than white space: each
//! of its alternatives either begins with the space or ends before it. So text can be cut before every such space, the
//! pieces tokenized alone, and the ids joined; and since texts repeat their words, most pieces are looked up instead of
//! tokenized. The engine spends nearly all of its time on that pattern, which is where the speed comes from.
//!
//! This holds for that pattern alone, so it is used only when the tokenizer file carries exactly it, and a test compares
//! more than 10,000 texts, cold and remembered, with another implementation.

use crate::error::Result;
use rustc_hash::FxHashMap;
use serde_json::Value as Json;
use std::sync::{PoisonError, RwLock};

/// Longest piece that is remembered.
const PIECE_BYTES: usize = 48;
/// Most pieces that are remembered; the first ones seen stay.
const PIECES: usize = 1 << 16;

/// The split pattern of gpt-oss's vocabulary.
pub(crate) const PATTERN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Whether a file's pre-tokenizer is the one that all of this relies on.
pub(crate) fn splits_at_spaces(normalizer: &Json, pre_tokenizer: &Json) -> bool {
    let Some([split, bytes]) = pre_tokenizer["pretokenizers"].as_array().map(Vec::as_slice) else {
        return false;
    };
    normalizer.is_null()
        && pre_tokenizer["type"] == "Sequence"
        && split["type"] == "Split"
        && split["pattern"]["Regex"] == PATTERN
        && split["behavior"] == "Isolated"
        && split["invert"] == false
        && bytes["type"] == "ByteLevel"
        && bytes["add_prefix_space"] == false
        && bytes["use_regex"] == false
}

/// Ids of pieces seen before.
#[derive(Debug, Default)]
pub(crate) struct Words {
    known: RwLock<FxHashMap<Box<str>, Box<[u32]>>>,
}

impl Words {
    /// The ids of a text, piece by piece; `encode` gives those that are not known.
    pub(crate) fn encode(&self, text: &str, encode: impl Fn(&str) -> Result<Vec<u32>>) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        let mut new: Vec<(&str, Vec<u32>)> = Vec::new();
        {
            // An entry is inserted whole, so a panic elsewhere cannot have left one half written.
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            for piece in pieces(text) {
                if let Some(known) = known.get(piece) {
                    ids.extend_from_slice(known);
                } else {
                    let piece_ids = encode(piece)?;
                    ids.extend_from_slice(&piece_ids);
                    if piece.len() <= PIECE_BYTES && known.len() + new.len() < PIECES {
                        new.push((piece, piece_ids));
                    }
                }
            }
        }
        if !new.is_empty() {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            for (piece, ids) in new {
                if known.len() < PIECES {
                    known.insert(piece.into(), ids.into_boxed_slice());
                }
            }
        }
        Ok(ids)
    }
}

/// Whether a text has something other than white space before a place, at which a character begins.
fn ends_in_something(text: &str, at: usize) -> bool {
    match text.as_bytes()[at - 1] {
        before if before.is_ascii() => !char::from(before).is_whitespace(),
        _ => text[..at].chars().next_back().is_some_and(|before| !before.is_whitespace()),
    }
}

/// Cuts a text before every space that follows something other than white space.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // A space at the very beginning follows nothing.
        let mut spaces = memchr::memchr_iter(b' ', &rest.as_bytes()[1..]).map(|at| at + 1);
        let cut = spaces.find(|at| ends_in_something(rest, *at));
        let (piece, after) = rest.split_at(cut.unwrap_or(rest.len()));
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_before_a_space_after_something() {
        let cut = |text| pieces(text).collect::<Vec<_>>();
        assert_eq!(cut("a bc  d, é\n e\t f "), ["a", " bc", "  d,", " é\n e\t f", " "]);
        assert_eq!(cut("  "), ["  "]);
        assert_eq!(cut("\u{a0} a\u{3000} é é\u{b} x"), ["\u{a0} a\u{3000} é", " é\u{b} x"]);
        assert_eq!(cut(""), Vec::<&str>::new());
    }

    #[test]
    fn a_piece_is_encoded_once_and_errors_are_not_remembered() {
        let words = Words::default();
        let calls = std::cell::Cell::new(0);
        let encode = |text: &str| {
            calls.set(calls.get() + 1);
            Ok(vec![text.len() as u32])
        };
        assert_eq!(words.encode("ab cd cd", encode).unwrap(), [2, 3, 3]);
        assert_eq!(words.encode("x cd ab", encode).unwrap(), [1, 3, 3]);
        assert_eq!(calls.get(), 5, "` cd` twice in the first text, then only what is new");
        let fail = |_: &str| Err(crate::Error::NoAssistant);
        assert!(words.encode("new", fail).is_err());
        assert_eq!(words.encode("new", encode).unwrap(), [3]);
    }
}
