//! The vocabulary of a `tokenizer.json` as GGUF keys.
//!
//! Strings stay in the byte-level alphabet, added tokens in plain text. llama.cpp chooses how texts are split by name:
//! only the pattern of o200k is written, and any other refused, because it would silently tokenize differently.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value as Json;

use super::Value;
use crate::error::{Error, Result};

/// Longest tokenizer file; the published one has 28 MB.
const MAX_BYTES: u64 = 256 << 20;
/// The pattern of o200k, which llama.cpp calls `gpt-4o`.
const SPLIT: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// Its name in llama.cpp.
const PRE: &str = "gpt-4o";

/// Kinds of tokens, by llama.cpp's numbers.
mod kind {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const USER_DEFINED: i32 = 4;
    pub(super) const UNUSED: i32 = 5;
}

/// What a model's tokens are.
pub(crate) struct Vocabulary {
    tokens: Vec<String>,
    kinds: Vec<i32>,
    merges: Vec<String>,
}

impl Vocabulary {
    /// Reads `DIR/tokenizer.json` for a model with `size` rows in its embedding.
    pub(crate) fn read(dir: &Path, size: usize) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        let bytes = descant_files::read_bounded(&path, MAX_BYTES)?;
        let wrong = |reason: String| Error::Beside { path: path.clone(), reason };
        let file: Json = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        Self::from_json(&file, size).map_err(wrong)
    }

    fn from_json(file: &Json, size: usize) -> std::result::Result<Self, String> {
        check_split(&file["pre_tokenizer"])?;
        let model = &file["model"];
        if model["type"] != "BPE" {
            return Err(format!("`model.type` is {}; GGUF's gpt2 tokenizer is BPE", model["type"]));
        }
        let vocabulary = model["vocab"].as_object().ok_or("`model.vocab` is not an object")?;
        let mut found: Vec<Option<(&str, i32)>> = vec![None; size];
        let mut place = |id: &Json, text, kind| {
            let at =
                id.as_u64().and_then(|id| usize::try_from(id).ok()).ok_or(format!("{text:?} has id {id}"))?;
            let slot = found.get_mut(at);
            *slot.ok_or(format!("{text:?} has id {id}, the model {size} rows"))? = Some((text, kind));
            Ok::<_, String>(())
        };
        for (text, id) in vocabulary {
            place(id, text, kind::NORMAL)?;
        }
        for added in file["added_tokens"].as_array().into_iter().flatten() {
            let text = added["content"].as_str().ok_or("an added token has no content")?;
            let looks_special = text.starts_with("<|") && text.ends_with("|>");
            let control = added["special"] == true || looks_special;
            place(&added["id"], text, if control { kind::CONTROL } else { kind::USER_DEFINED })?;
        }
        let (mut tokens, mut kinds, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (id, found) in found.into_iter().enumerate() {
            let (text, kind) = found
                .map_or_else(|| (format!("[PAD{id}]"), kind::UNUSED), |(text, kind)| (text.to_owned(), kind));
            if !seen.insert(text.clone()) {
                return Err(format!("the token {text:?} is there twice, which llama.cpp refuses"));
            }
            tokens.push(text);
            kinds.push(kind);
        }
        let merges = model["merges"].as_array().ok_or("`model.merges` is not a list")?;
        let merges =
            merges.iter().map(merge).collect::<Option<_>>().ok_or("a merge is not a pair of strings")?;
        Ok(Self { tokens, kinds, merges })
    }

    /// The id of a token.
    pub(crate) fn id(&self, text: &str) -> Option<u32> {
        self.tokens.iter().position(|token| token == text).map(|id| id as u32)
    }

    /// Its keys.
    pub(crate) fn keys(self) -> [(&'static str, Value); 5] {
        [
            ("tokenizer.ggml.model", Value::Text("gpt2".to_owned())),
            ("tokenizer.ggml.pre", Value::Text(PRE.to_owned())),
            ("tokenizer.ggml.tokens", Value::Texts(self.tokens)),
            ("tokenizer.ggml.token_type", Value::I32s(self.kinds)),
            ("tokenizer.ggml.merges", Value::Texts(self.merges)),
        ]
    }
}

/// A merge as one text; a space inside a part is written as the byte-level alphabet has it.
fn merge(merge: &Json) -> Option<String> {
    match merge {
        Json::String(text) => Some(text.clone()),
        Json::Array(pair) => {
            let part = |part: &Json| Some(part.as_str()?.replace(' ', "\u{120}"));
            let [left, right] = &pair[..] else { return None };
            Some(format!("{} {}", part(left)?, part(right)?))
        }
        _ => None,
    }
}

/// The pre-tokenizer must be o200k's: its pattern, then bytes.
fn check_split(pre: &Json) -> std::result::Result<(), String> {
    let steps = match pre["pretokenizers"].as_array() {
        Some(steps) => steps.clone(),
        None => vec![pre.clone()],
    };
    let split = steps.iter().find(|step| step["type"] == "Split");
    let pattern = split.and_then(|split| split["pattern"]["Regex"].as_str());
    if pattern == Some(SPLIT) {
        return Ok(());
    }
    Err("its pre-tokenizer does not split texts by the pattern of o200k, the only one that is written to GGUF".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file() -> Json {
        json!({
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": SPLIT}}, {"type": "ByteLevel"}]},
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
            "added_tokens": [
                {"id": 3, "content": "<|end|>", "special": false}, {"id": 5, "content": "<tool>", "special": false}],
        })
    }

    #[test]
    fn every_row_has_a_token_and_a_kind() {
        let read = Vocabulary::from_json(&file(), 7).unwrap();
        assert_eq!(read.tokens, ["a", "b", "ab", "<|end|>", "[PAD4]", "<tool>", "[PAD6]"]);
        assert_eq!(read.kinds, [1, 1, 1, 3, 5, 4, 5]);
        assert_eq!(read.merges, ["a b"]);
        assert_eq!(read.id("<tool>"), Some(5));
        assert_eq!(merge(&json!([" a", "b"])).unwrap(), "\u{120}a b");
    }

    #[test]
    fn what_llama_cpp_would_misread_is_refused() {
        let wrong = |change: fn(&mut Json)| {
            let mut file = file();
            change(&mut file);
            Vocabulary::from_json(&file, 7).err().unwrap_or_default()
        };
        assert!(
            wrong(|f| f["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("x"))
                .contains("o200k")
        );
        assert!(wrong(|f| f["model"]["type"] = json!("Unigram")).contains("Unigram"));
        assert!(wrong(|f| f["model"]["vocab"]["c"] = json!(9)).contains("7 rows"));
        assert!(wrong(|f| f["added_tokens"][1]["content"] = json!("a")).contains("twice"));
        assert!(wrong(|f| f["model"]["merges"] = json!([["a"]])).contains("merge"));
    }
}
