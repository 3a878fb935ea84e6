//! What the tests share: the real vocabulary, the fixtures, the oracle's rows.

use descant_harmony::{ChatTemplate, Renderer, Tokenizer};
use serde_json::{Map, Value};
use std::io::Read;
use std::path::PathBuf;
use std::sync::OnceLock;

pub(crate) fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/harmony")
}

/// The published tokenizer with the official template.
pub(crate) fn gpt_oss() -> &'static Renderer {
    static RENDERER: OnceLock<Renderer> = OnceLock::new();
    RENDERER.get_or_init(|| Renderer::new(Tokenizer::gpt_oss().unwrap(), ChatTemplate::official().unwrap()))
}

/// The published tokenizer as the library makes it of the published file.
pub(crate) fn gpt_oss_of_its_file() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let mut file = descant_harmony::vocabulary::gpt_oss_tokenizer().unwrap();
        // Another file that says the same: the published one is only recognized.
        file.push(b'\n');
        Tokenizer::from_bytes(&file, "tokenizer.json").unwrap()
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
