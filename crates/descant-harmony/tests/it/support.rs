//! What the tests share: the real vocabulary, the fixtures, the oracle's rows.

use descant_harmony::{ChatTemplate, Renderer, Tokenizer};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
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

/// The published `tokenizer.json`, byte for byte, from the ranks that a dependency carries.
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
    let bytes = descant_harmony::vocabulary::gpt_oss_tokenizer().unwrap();
    assert!(right(&bytes), "the rebuilt tokenizer.json is not the published one");
    let mut temporary = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::io::Write::write_all(&mut temporary, &bytes).unwrap();
    temporary.persist(kept).unwrap();
    bytes
}
