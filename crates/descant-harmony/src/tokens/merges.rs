//! The merges of a tokenizer file, read in one go: each a list of two tokens, or one text with a space between them.

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use std::fmt;

/// The header that files of merges begin with.
const HEADER: &str = "#version";

/// The merges, in their order.
#[derive(Default)]
pub(super) struct Merges(pub(super) tokenizers::models::bpe::Merges);

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(List)
    }
}

struct List;

impl<'de> Visitor<'de> for List {
    type Value = Merges;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of merges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merges, A::Error> {
        let mut merges = Vec::new();
        while let Some(Merge(merge)) = list.next_element()? {
            merges.extend(merge);
        }
        Ok(Merges(merges))
    }
}

/// One merge; none in a header.
struct Merge(Option<(String, String)>);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Pair)
    }
}

struct Pair;

impl<'de> Visitor<'de> for Pair {
    type Value = Merge;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a merge: two tokens")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Merge, E> {
        if text.starts_with(HEADER) {
            return Ok(Merge(None));
        }
        match text.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => {
                Ok(Merge(Some((left.to_owned(), right.to_owned()))))
            }
            _ => Err(E::custom(format!(
                "a merge of other than two tokens: `{}`",
                text.chars().take(60).collect::<String>()
            ))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Merge, A::Error> {
        let left = pair.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let right = pair.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
        match pair.next_element::<String>()? {
            None => Ok(Merge(Some((left, right)))),
            Some(_) => Err(A::Error::invalid_length(3, &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read_and_others_are_refused() {
        let read = |json: &str| serde_json::from_str::<Merges>(json).map(|merges| merges.0);
        let pair = |left: &str, right: &str| (left.to_owned(), right.to_owned());
        assert_eq!(read(r#"[["a","b"],["c d","e"]]"#).unwrap(), [pair("a", "b"), pair("c d", "e")]);
        assert_eq!(read(r##"["#version: 0.2","a b","c d"]"##).unwrap(), [pair("a", "b"), pair("c", "d")]);
        for wrong in
            [r#"["a"]"#, r#"["a b c"]"#, r#"[["a"]]"#, r#"[["a","b","c"]]"#, "[1]", "{}", r#"[["a",1]]"#]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
