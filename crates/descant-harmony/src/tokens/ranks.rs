//! The published vocabulary as a model of the engine: tokens by their bytes, merges by their ranks.
//!
//! A byte-level BPE has a table of tokens and one of merges. Where every split of a token into two others is a merge,
//! ordered by that token and then by its parts, as in gpt-oss, the second table says nothing new: two neighbours may
//! merge if their bytes together are a token, and which pair comes first follows from the ids. Without 446,189 merges
//! as texts, the tokenizer is there in a few milliseconds instead of a second. That it gives the ids of the engine's
//! own BPE, made of the published file, is tested.

use crate::tokens::letters::Letters;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use tokenizers::Token;

/// Tokens, the place of each its id.
pub(super) struct Ranks {
    tokens: Vec<&'static [u8]>,
    ids: FxHashMap<&'static [u8], u32>,
    letters: Letters,
}

/// Bytes of a piece that belong together for now. It is at its first byte.
#[derive(Clone, Copy)]
struct Part {
    id: u32,
    /// One past its last byte; 0 once it is part of the one before it.
    end: usize,
    /// Where the part before it begins.
    before: usize,
}

/// Two neighbours that make a token. The least is merged first: by the token, then by its parts, then by their place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Merge {
    id: u32,
    left: u32,
    right: u32,
    at: usize,
}

impl Ranks {
    /// The tokens of a list. `None` if a byte is not a token of its own: then not every text has ids.
    pub(super) fn new(tokens: Vec<&'static [u8]>) -> Option<Self> {
        let ids: FxHashMap<&[u8], u32> = tokens.iter().copied().zip(0..).collect();
        let every_byte = (0..=u8::MAX).all(|byte| ids.contains_key(&[byte][..]));
        every_byte.then(|| Self { tokens, ids, letters: Letters::new() })
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The id of a token as byte-level vocabularies spell it.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(self.letters.bytes(token)?.as_slice()).copied()
    }

    /// How byte-level vocabularies spell a token.
    pub(super) fn token(&self, id: u32) -> Option<String> {
        self.tokens.get(id as usize).map(|token| self.letters.text(token))
    }

    /// The tokens of a piece of text; `None` if it is not spelled in bytes.
    pub(super) fn tokenize(&self, piece: &str) -> Option<Vec<Token>> {
        let bytes = self.letters.bytes(piece)?;
        let ids = match self.ids.get(bytes.as_slice()) {
            Some(id) => vec![*id],
            None => self.merged(&bytes),
        };
        let mut at = 0;
        let token = |id: u32| {
            let text = self.letters.text(self.tokens[id as usize]);
            let from = at;
            at += text.len();
            Token::new(id, text, (from, at))
        };
        Some(ids.into_iter().map(token).collect())
    }

    /// The ids of bytes that are not one token together.
    fn merged(&self, bytes: &[u8]) -> Vec<u32> {
        let part =
            |at: usize| Part { id: self.ids[&bytes[at..=at]], end: at + 1, before: at.saturating_sub(1) };
        let mut parts: Vec<Part> = (0..bytes.len()).map(part).collect();
        let merge = |parts: &[Part], at: usize| {
            let left = parts[at];
            let right = parts.get(left.end)?;
            let id = *self.ids.get(&bytes[at..right.end])?;
            Some(Reverse(Merge { id, left: left.id, right: right.id, at }))
        };
        let mut queue: BinaryHeap<Reverse<Merge>> =
            (0..bytes.len()).filter_map(|at| merge(&parts, at)).collect();
        while let Some(Reverse(Merge { id, left, right, at })) = queue.pop() {
            let first = parts[at];
            let second = parts.get(first.end).copied().filter(|second| second.id == right);
            // Since this merge was found, its parts may have become parts of others.
            let Some(second) = second.filter(|_| first.end > 0 && first.id == left) else { continue };
            parts[first.end].end = 0;
            parts[at] = Part { id, end: second.end, ..first };
            if let Some(next) = parts.get_mut(second.end) {
                next.before = at;
            }
            if at > 0 {
                queue.extend(merge(&parts, first.before));
            }
            queue.extend(merge(&parts, at));
        }
        parts.iter().filter(|part| part.end > 0).map(|part| part.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
    use tokenizers::Model as _;
    use tokenizers::models::bpe::{BPE, Vocab};

    /// All bytes, then some longer tokens.
    fn ranks(longer: &[&'static [u8]]) -> Ranks {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        let bytes: &'static [u8] = bytes.leak();
        Ranks::new(bytes.chunks(1).chain(longer.iter().copied()).collect()).unwrap()
    }

    #[test]
    fn the_lowest_merge_comes_first_wherever_it_stands() {
        let ranks = ranks(&[b"bc", b"ab", b"abc", b"cd"]);
        let ids =
            |piece| ranks.tokenize(piece).unwrap().into_iter().map(|token| token.id).collect::<Vec<_>>();
        assert_eq!(ids("ab"), [257]);
        assert_eq!(ids("abc"), [258], "a whole token needs no merges");
        assert_eq!(ids("abcd"), [258, 100], "`bc` before `ab` and `cd`, then `a` and `bc`");
        assert_eq!(ids("abab"), [257, 257]);
        assert_eq!(ids("cdcd"), [259, 259]);
        assert_eq!(ids(""), Vec::<u32>::new());
    }

    /// The engine's own BPE, with every split of a token as a merge, on random vocabularies of two letters.
    #[test]
    fn ids_are_those_of_a_table_of_all_splits_in_order() {
        let mut dice = ChaCha8Rng::seed_from_u64(7);
        let mut word = |most: u32| {
            let length = 1 + dice.next_u32() % most;
            (0..length).map(|_| if dice.next_u32() % 2 == 0 { 'a' } else { 'b' }).collect::<String>()
        };
        let mut merged = 0;
        for _ in 0..200 {
            let mut longer: Vec<&'static [u8]> = Vec::new();
            for token in (0..12).map(|_| word(6)).filter(|token| token.len() > 1) {
                let token: &'static [u8] = token.leak().as_bytes();
                if !longer.contains(&token) {
                    longer.push(token);
                }
            }
            let ranks = ranks(&longer);
            let spelled: Vec<String> = (0..ranks.len() as u32).map(|id| ranks.token(id).unwrap()).collect();
            let mut merges = Vec::new();
            for token in &spelled[256..] {
                let mut splits: Vec<(u32, u32)> = (1..token.len())
                    .filter_map(|at| Some((ranks.id(&token[..at])?, ranks.id(&token[at..])?)))
                    .collect();
                splits.sort_unstable();
                merges.extend(splits.iter().map(|(left, right)| {
                    (spelled[*left as usize].clone(), spelled[*right as usize].clone())
                }));
            }
            let vocab: Vocab = spelled.iter().cloned().zip(0..).collect();
            let bpe = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(true).build().unwrap();
            for piece in (0..40).map(|_| word(40)) {
                let tokens = ranks.tokenize(&piece).unwrap();
                merged += usize::from(tokens.len() < piece.len());
                assert_eq!(tokens, bpe.tokenize(&piece).unwrap(), "{piece} with {longer:?}");
            }
        }
        assert!(merged > 6000, "{merged}");
    }

    #[test]
    fn a_list_without_a_byte_is_none() {
        assert!(Ranks::new(vec![b"a", b"b"]).is_none());
    }
}
