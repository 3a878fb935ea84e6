//! The tokenizer of gpt-oss, made here instead of downloaded.
//!
//! The published `tokenizer.json` is 27.9 MB, of which all but a few kilobytes follow from the ranks of o200k_base. The
//! crate tiktoken-rs carries those ranks, so the file can be written again, byte for byte: the vocabulary in rank
//! order, the merges as every split of a token into two others, the special tokens, and the layout of the original.
//! The checksum of the published file decides whether it is right; nothing else is given out.
//!
//! Only with the feature `gpt-oss-vocabulary`, which is on by default and costs 3.6 MB of ranks in the program.

use crate::digest::hex;
use crate::error::{Error, Result};
use crate::text::template::OFFICIAL;
use crate::tokens::words::PATTERN;
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// SHA-256 of `tokenizer.json` of openai/gpt-oss-20b and openai/gpt-oss-120b.
pub const TOKENIZER_SHA256: &str = "0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3";

/// Ordinary tokens; the special ones follow.
const RANKS: u32 = 199_998;
const LAST_SPECIAL: u32 = 200_018;

/// A file of a model directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// Everything of the published gpt-oss that tokenizing and rendering need: `tokenizer.json`, `tokenizer_config.json`,
/// `special_tokens_map.json` and `chat_template.jinja`, each as published.
///
/// # Errors
/// When the rebuilt `tokenizer.json` is not the published one.
pub fn gpt_oss_files() -> Result<Vec<ModelFile>> {
    let embedded = |name, text: &str| ModelFile { name, bytes: text.as_bytes().to_vec() };
    Ok(vec![
        ModelFile { name: "tokenizer.json", bytes: gpt_oss_tokenizer()? },
        embedded("tokenizer_config.json", include_str!("../../assets/gpt-oss-tokenizer_config.json")),
        embedded("special_tokens_map.json", include_str!("../../assets/gpt-oss-special_tokens_map.json")),
        embedded("chat_template.jinja", OFFICIAL),
    ])
}

/// The published `tokenizer.json`.
///
/// # Errors
/// When what was rebuilt is not the published file, which a change of the ranks' crate could cause.
pub fn gpt_oss_tokenizer() -> Result<Vec<u8>> {
    let failed = |reason: String| Error::TokenizerFile { file: "gpt-oss vocabulary".to_owned(), reason };
    let json = tokenizer_json().map_err(failed)?;
    let bytes = serde_json::to_vec_pretty(&json).map_err(|error| failed(error.to_string()))?;
    let sha256 = hex(&Sha256::digest(&bytes));
    if sha256 == TOKENIZER_SHA256 {
        Ok(bytes)
    } else {
        Err(failed(format!("rebuilt with sha256 {sha256}, published is {TOKENIZER_SHA256}")))
    }
}

fn tokenizer_json() -> Result<Json, String> {
    let ranks = tiktoken_rs::o200k_base_singleton();
    let token = |rank| ranks.decode_bytes(&[rank]).map_err(|error| format!("rank {rank}: {error}"));
    let tokens = (0..RANKS).map(token).collect::<Result<Vec<Vec<u8>>, _>>()?;
    let chars = byte_chars();
    let shown = |token: &[u8]| token.iter().map(|byte| chars[usize::from(*byte)]).collect::<String>();
    let vocab: Map<String, Json> =
        tokens.iter().zip(0..RANKS).map(|(token, rank)| (shown(token), rank.into())).collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": (RANKS..=LAST_SPECIAL).map(added_token).collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": vocab, "merges": merges(&tokens, shown),
        },
    }))
}

/// For each token in rank order, every split of it into two tokens, by their ranks.
fn merges(tokens: &[Vec<u8>], shown: impl Fn(&[u8]) -> String) -> Vec<Json> {
    let rank_of: HashMap<&[u8], u32> = tokens.iter().map(Vec::as_slice).zip(0..).collect();
    let mut merges = Vec::new();
    for token in tokens {
        let mut splits: Vec<_> = (1..token.len())
            .filter_map(|at| Some((*rank_of.get(&token[..at])?, *rank_of.get(&token[at..])?, at)))
            .collect();
        splits.sort_unstable();
        merges.extend(splits.iter().map(|(_, _, at)| json!([shown(&token[..*at]), shown(&token[*at..])])));
    }
    merges
}

fn added_token(id: u32) -> Json {
    let content = match id {
        199_998 => "<|startoftext|>".to_owned(),
        199_999 => "<|endoftext|>".to_owned(),
        200_002 => "<|return|>".to_owned(),
        200_003 => "<|constrain|>".to_owned(),
        200_005 => "<|channel|>".to_owned(),
        200_006 => "<|start|>".to_owned(),
        200_007 => "<|end|>".to_owned(),
        200_008 => "<|message|>".to_owned(),
        200_012 => "<|call|>".to_owned(),
        200_018 => "<|endofprompt|>".to_owned(),
        other => format!("<|reserved_{other}|>"),
    };
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": false, "special": true})
}

/// The printable stand-in of every byte, as byte-level vocabularies spell tokens.
fn byte_chars() -> Vec<char> {
    let mut stand_ins = '\u{100}'..;
    let stand_in = |byte: u8| match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        _ => stand_ins.next().expect("there are more characters than bytes"),
    };
    (0..=255).map(stand_in).collect()
}
