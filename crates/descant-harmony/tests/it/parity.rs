//! The tokenizer against a second implementation of the same vocabulary, on texts of every kind.

use crate::support::{fixtures, gpt_oss, gpt_oss_of_its_file, oracle};
use descant_harmony::TextEncoder;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;

/// Letters, marks, digits, spaces and signs from all over Unicode; assigned since long before either table was made.
const RANGES: [(u32, u32); 24] = [
    (0x20, 0x7E),
    (0x20, 0x7E),
    (0x09, 0x0D),
    (0xA0, 0x17F),
    (0x300, 0x33F),
    (0x391, 0x3A1),
    (0x410, 0x44F),
    (0x5D0, 0x5EA),
    (0x621, 0x64A),
    (0x660, 0x669),
    (0x905, 0x939),
    (0xE01, 0xE3A),
    (0x1E00, 0x1EFF),
    (0x2000, 0x200F),
    (0x2010, 0x2027),
    (0x20A0, 0x20B5),
    (0x2160, 0x2182),
    (0x2190, 0x21FF),
    (0x3041, 0x3096),
    (0x4E00, 0x9FA5),
    (0xAC00, 0xD7A3),
    (0xFF01, 0xFF5E),
    (0x1F300, 0x1F5FF),
    (0x1D400, 0x1D454),
];
const BITS: [&str; 20] = [
    "'s",
    "'S",
    "'re",
    "'LL",
    "n't",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\n\n",
    "\t",
    "//",
    "123",
    "1234567",
    "don't",
    "I'VE",
    "été",
    "e\u{301}",
    "<|end|>",
    "👩‍👩‍👧",
];

fn all_strings(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) => out.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| all_strings(item, out)),
        Value::Object(map) => map.values().for_each(|item| all_strings(item, out)),
        _ => {}
    }
}

fn corpus() -> Vec<String> {
    let mut texts = Vec::new();
    for row in oracle() {
        all_strings(&Value::Object(row), &mut texts);
    }
    for file in ["README.md", "data/multilingual-thinking-24.jsonl", "tiny/tokenizer_config.json"] {
        let text = std::fs::read_to_string(fixtures().join(file)).unwrap();
        texts.extend(text.lines().map(str::to_owned));
        texts.push(text);
    }
    for source in
        [include_str!("parity.rs"), include_str!("support.rs"), include_str!("../../src/text/escape.rs")]
    {
        texts.extend(source.lines().map(str::to_owned));
        texts.push(source.to_owned());
    }
    for unit in ["a", " ", "\n", "=", "1", "-", "é", "日", " \n", "aB", "'s"] {
        texts.extend([3, 7, 64, 500, 2000].map(|times| unit.repeat(times)));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(2025);
    let mut below = |bound: u32| rng.next_u32() % bound;
    for round in 0..9_000 {
        let mut text = String::new();
        for _ in 0..below(40) {
            if round % 2 == 0 && below(3) == 0 {
                text.push_str(BITS[below(BITS.len() as u32) as usize]);
            } else {
                let (from, to) = RANGES[below(if round % 3 == 0 { 3 } else { RANGES.len() as u32 }) as usize];
                text.extend(char::from_u32(from + below(to - from + 1)));
            }
        }
        texts.push(text);
    }
    texts.sort();
    texts.dedup();
    texts
}

#[test]
fn ten_thousand_texts_encode_as_in_tiktoken_and_decode_to_themselves() {
    let texts = corpus();
    assert!(texts.len() >= 10_000, "{}", texts.len());
    let reference = tiktoken_rs::o200k_base_singleton();
    let tokenizer = gpt_oss().tokenizer();
    let mut different = Vec::new();
    for text in &texts {
        let ids = tokenizer.encode_text(text).unwrap();
        assert_eq!(tokenizer.encode_text(text).unwrap(), ids, "the second time, from memory: {text:?}");
        if ids != reference.encode_ordinary(text) {
            different.push(text);
        }
        assert_eq!(gpt_oss_of_its_file().encode_text(text).unwrap(), ids, "made of its file: {text:?}");
        assert_eq!(&tokenizer.decode(&ids).unwrap(), text);
    }
    assert!(different.is_empty(), "{} of {}: {:?}", different.len(), texts.len(), &different[..1]);
}
