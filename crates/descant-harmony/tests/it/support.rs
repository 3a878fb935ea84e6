//! What the tests share: the real vocabulary, the fixtures, the oracle's rows.

use descant_harmony::{ChatTemplate, Renderer, Tokenizer};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::OnceLock;

/// `tokenizer.json` of openai/gpt-oss-20b at revision 6cee5e81.
const PUBLISHED_SHA256: &str = "0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3";

pub(crate) fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/harmony")
}

/// The published tokenizer with the official template.
pub(crate) fn gpt_oss() -> &'static Renderer {
    static RENDERER: OnceLock<Renderer> = OnceLock::new();
    RENDERER.get_or_init(|| {
        let bytes = published_tokenizer();
        let tokenizer = Tokenizer::from_bytes(&bytes, "tokenizer.json of gpt-oss").unwrap();
        Renderer::new(tokenizer, ChatTemplate::official().unwrap())
    })
}

/// The tiny model's tokenizer with the official template.
pub(crate) fn tiny() -> &'static Renderer {
    static RENDERER: OnceLock<Renderer> = OnceLock::new();
    RENDERER.get_or_init(|| Renderer::load(&fixtures().join("tiny"), None).unwrap())
}

/// The rows of the oracle.
pub(crate) fn oracle() -> Vec<Map<String, Value>> {
    let file = std::fs::File::open(fixtures().join("harmony.jsonl.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let rows: Vec<_> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 120);
    rows
}

/// The published `tokenizer.json`, byte for byte, from the ranks that a test dependency carries.
///
/// Built once and kept beside the other build products; the checksum decides, not the file's presence.
fn published_tokenizer() -> Vec<u8> {
    let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gpt-oss-tokenizer-0614fe83.json");
    let right = |bytes: &[u8]| {
        let hex = Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        hex == PUBLISHED_SHA256
    };
    if let Some(bytes) = std::fs::read(&kept).ok().filter(|bytes| right(bytes)) {
        return bytes;
    }
    let bytes = serde_json::to_string_pretty(&tokenizer_json()).unwrap().into_bytes();
    assert!(right(&bytes), "the rebuilt tokenizer.json is not the published one");
    let mut temporary = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::io::Write::write_all(&mut temporary, &bytes).unwrap();
    temporary.persist(kept).unwrap();
    bytes
}

const RANKS: u32 = 199_998;

fn tokenizer_json() -> Value {
    let ranks = tiktoken_rs::o200k_base_singleton();
    let tokens: Vec<Vec<u8>> = (0..RANKS).map(|rank| ranks.decode_bytes(&[rank]).unwrap()).collect();
    let rank_of: HashMap<&[u8], u32> = tokens.iter().map(Vec::as_slice).zip(0..).collect();
    let chars = byte_chars();
    let shown = |token: &[u8]| token.iter().map(|byte| chars[usize::from(*byte)]).collect::<String>();
    let vocab: Map<String, Value> =
        tokens.iter().zip(0..RANKS).map(|(token, rank)| (shown(token), rank.into())).collect();
    let mut merges = Vec::new();
    for token in &tokens {
        let mut splits: Vec<_> = (1..token.len())
            .filter_map(|at| Some((*rank_of.get(&token[..at])?, *rank_of.get(&token[at..])?, at)))
            .collect();
        splits.sort_unstable();
        merges.extend(splits.iter().map(|(_, _, at)| json!([shown(&token[..*at]), shown(&token[*at..])])));
    }
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(),
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN.join("|")}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": vocab, "merges": merges,
        },
    })
}

fn added_tokens() -> Vec<Value> {
    let name = |id: u32| match id {
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
    let token = |id: u32| {
        json!({"id": id, "content": name(id), "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    (RANKS..=200_018).map(token).collect()
}

/// The printable stand-in of every byte, as byte-level vocabularies spell tokens.
fn byte_chars() -> Vec<char> {
    let mut next = 0x100;
    (0..=255u8)
        .map(|byte| match byte {
            0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap()
            }
        })
        .collect()
}

const PATTERN: [&str; 7] = [
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
];
