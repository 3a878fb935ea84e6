//! The tokenizer of gpt-oss, made here instead of downloaded.
//!
//! The published `tokenizer.json` is 27.9 MB, of which all but a few kilobytes follow from its tokens in their order.
//! Those are kept here (`assets/o200k.ranks`), so the file can be written again, byte for byte: the vocabulary, the
//! merges as every split of a token into two others, the special tokens, and the layout of the original. The checksum
//! of the published file decides whether it is right; nothing else is given out. A tokenizer is made of the same parts
//! without writing the file, and without merges (`ranks.rs`).

use crate::digest::hex;
use crate::error::{Error, Result};
use crate::text::template::OFFICIAL;
use crate::tokens::letters::Letters;
use crate::tokens::ranks::Ranks;
use crate::tokens::tokenizer_file::TokenizerFile;
use crate::tokens::words::PATTERN;
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use serde::{Serialize, Serializer};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

/// SHA-256 of `tokenizer.json` of openai/gpt-oss-20b and openai/gpt-oss-120b.
pub const TOKENIZER_SHA256: &str = "0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3";

/// All ordinary tokens in their order, each behind its length in one byte. Everything else of the file follows from
/// them.
static LIST: &[u8] = include_bytes!("../../assets/o200k.ranks");
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

/// What the published file says beside its vocabulary and merges.
pub(super) fn published_file() -> Result<TokenizerFile> {
    let none = layout(Json::Object(serde_json::Map::new()), Json::Array(Vec::new()));
    let none = serde_json::to_vec(&none).map_err(|error| failed(error.to_string()))?;
    TokenizerFile::parse(&none).map_err(failed)
}

/// The published vocabulary.
pub(super) fn published_ranks() -> Result<Ranks> {
    Ranks::new(tokens().map_err(failed)?).ok_or_else(|| failed("a byte is not a token".to_owned()))
}

/// The ordinary tokens, the place of each its id.
fn tokens() -> Result<Vec<&'static [u8]>, String> {
    let mut tokens = Vec::with_capacity(RANKS as usize);
    let mut list = LIST;
    while let Some((length, rest)) = list.split_first() {
        let (token, rest) = rest.split_at_checked(usize::from(*length)).ok_or("the last token is cut")?;
        tokens.push(token);
        list = rest;
    }
    if tokens.len() == RANKS as usize { Ok(tokens) } else { Err(format!("{} tokens", tokens.len())) }
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
        let (tokens, letters) = (tokens()?, Letters::new());
        let spelled = |token: &&[u8]| letters.text(token);
        Ok(Self { tokens: tokens.iter().map(spelled).collect(), splits: splits(&tokens) })
    }

    fn merges(&self) -> impl Iterator<Item = (String, String)> {
        let of = |rank: u32| self.tokens[rank as usize].clone();
        self.splits.iter().map(move |(left, right)| (of(*left), of(*right)))
    }
}

fn splits(tokens: &[&[u8]]) -> Vec<(u32, u32)> {
    let rank_of: FxHashMap<&[u8], u32> = tokens.iter().copied().zip(0..).collect();
    let of = |token: &&[u8]| {
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
