//! The tokenizer of gpt-oss, made here instead of downloaded.
//!
//! The published `tokenizer.json` is 27.9 MB, of which all but a few kilobytes follow from the ranks of o200k_base. The
//! crate tiktoken-rs carries those ranks, so the file can be written again, byte for byte: the vocabulary in rank
//! order, the merges as every split of a token into two others, the special tokens, and the layout of the original.
//! The checksum of the published file decides whether it is right; nothing else is given out. A tokenizer is made of
//! the same parts without writing the file, and there the checksum of the ranks decides.
//!
//! Only with the feature `gpt-oss-vocabulary`, which is on by default and costs 3.6 MB of ranks in the program.

use crate::digest::hex;
use crate::error::{Error, Result};
use crate::text::template::OFFICIAL;
use crate::tokens::merges::Merges;
use crate::tokens::tokenizer_file::TokenizerFile;
use crate::tokens::words::PATTERN;
use rayon::prelude::*;
use serde::{Serialize, Serializer};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// SHA-256 of `tokenizer.json` of openai/gpt-oss-20b and openai/gpt-oss-120b.
pub const TOKENIZER_SHA256: &str = "0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3";

/// SHA-256 of all ranks' tokens, each behind its length in one byte. Everything else of the file follows from them.
const RANKS_SHA256: &str = "bac143fe7fe950090c6e4ed9a2f80de5412a92495758b52becbbe5a7eea25ecb";
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
    let published = Published::new().map_err(failed)?;
    let bytes = serde_json::to_vec_pretty(&layout(Vocab(&published), Pairs(&published)))
        .map_err(|error| failed(error.to_string()))?;
    let sha256 = hex(&Sha256::digest(&bytes));
    if sha256 == TOKENIZER_SHA256 {
        Ok(bytes)
    } else {
        Err(failed(format!("rebuilt with sha256 {sha256}, published is {TOKENIZER_SHA256}")))
    }
}

/// What the published file says, without writing it.
pub(super) fn tokenizer_file() -> Result<TokenizerFile> {
    let published = Published::new().map_err(failed)?;
    let none = layout(Json::Object(serde_json::Map::new()), Json::Array(Vec::new()));
    let none = serde_json::to_vec(&none).map_err(|error| failed(error.to_string()))?;
    let mut file = TokenizerFile::parse(&none).map_err(failed)?;
    file.model.merges = Merges(published.merges().collect());
    file.model.vocab = published.tokens.into_iter().zip(0..).collect();
    Ok(file)
}

fn failed(reason: String) -> Error {
    Error::TokenizerFile { file: "gpt-oss vocabulary".to_owned(), reason }
}

/// The vocabulary, and the merges that follow from it.
struct Published {
    /// The tokens in rank order, as byte-level vocabularies spell them.
    tokens: Vec<String>,
    /// For each token in rank order, every split of it into two tokens, by their ranks.
    splits: Vec<(u32, u32)>,
}

impl Published {
    fn new() -> Result<Self, String> {
        // Not the crate's own lasting copy: it takes 60 MB, and is needed for a moment.
        let ranks = tiktoken_rs::o200k_base().map_err(|error| error.to_string())?;
        let token = |rank| ranks.decode_bytes(&[rank]).map_err(|error| format!("rank {rank}: {error}"));
        let tokens = (0..RANKS).map(token).collect::<Result<Vec<Vec<u8>>, _>>()?;
        drop(ranks);
        let mut hash = Sha256::new();
        for token in &tokens {
            hash.update([token.len() as u8]);
            hash.update(token);
        }
        let sha256 = hex(&hash.finalize());
        if sha256 != RANKS_SHA256 {
            return Err(format!("made of ranks with sha256 {sha256}, published are {RANKS_SHA256}"));
        }
        let splits = splits(&tokens);
        let chars = byte_chars();
        let spelled = |token: Vec<u8>| token.iter().map(|byte| chars[usize::from(*byte)]).collect();
        Ok(Self { tokens: tokens.into_iter().map(spelled).collect(), splits })
    }

    fn merges(&self) -> impl Iterator<Item = (String, String)> {
        let of = |rank: u32| self.tokens[rank as usize].clone();
        self.splits.iter().map(move |(left, right)| (of(*left), of(*right)))
    }
}

fn splits(tokens: &[Vec<u8>]) -> Vec<(u32, u32)> {
    let rank_of: HashMap<&[u8], u32> = tokens.iter().map(Vec::as_slice).zip(0..).collect();
    let of = |token: &Vec<u8>| {
        let split = |at| Some((*rank_of.get(&token[..at])?, *rank_of.get(&token[at..])?));
        let mut splits: Vec<(u32, u32)> = (1..token.len()).filter_map(split).collect();
        splits.sort_unstable();
        splits
    };
    tokens.par_iter().flat_map_iter(of).collect()
}

/// The file's layout around a vocabulary and merges.
fn layout<V: Serialize, M: Serialize>(vocab: V, merges: M) -> impl Serialize {
    #[derive(Serialize)]
    struct File<V, M> {
        version: &'static str,
        truncation: (),
        padding: (),
        added_tokens: Vec<Json>,
        normalizer: (),
        pre_tokenizer: Json,
        post_processor: Json,
        decoder: Json,
        model: Model<V, M>,
    }
    #[derive(Serialize)]
    struct Model<V, M> {
        #[serde(rename = "type")]
        kind: &'static str,
        dropout: (),
        unk_token: (),
        continuing_subword_prefix: (),
        end_of_word_suffix: (),
        fuse_unk: bool,
        byte_fallback: bool,
        ignore_merges: bool,
        vocab: V,
        merges: M,
    }
    let bytes = |trim_offsets: bool| json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": trim_offsets, "use_regex": true});
    File {
        version: "1.0",
        truncation: (),
        padding: (),
        added_tokens: (RANKS..=LAST_SPECIAL).map(added_token).collect(),
        normalizer: (),
        pre_tokenizer: json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]}),
        post_processor: bytes(false),
        decoder: bytes(true),
        model: Model {
            kind: "BPE",
            dropout: (),
            unk_token: (),
            continuing_subword_prefix: (),
            end_of_word_suffix: (),
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: true,
            vocab,
            merges,
        },
    }
}

/// Writes the vocabulary in rank order.
struct Vocab<'p>(&'p Published);

impl Serialize for Vocab<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.tokens.iter().zip(0_u32..))
    }
}

/// Writes the merges.
struct Pairs<'p>(&'p Published);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.merges())
    }
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
