//! Tokenizer files made to bring the process down: each is an error that names the file, or harmless.

use crate::support::{fixtures, tiny};
use descant_harmony::{Error, TextEncoder, Tokenizer, limits};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn crafted(change: impl FnOnce(&mut Value)) -> Result<Tokenizer, Error> {
    let text = std::fs::read_to_string(fixtures().join("tiny/tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    change(&mut json);
    Tokenizer::from_bytes(json.to_string().as_bytes(), "crafted.json")
}

fn refused(change: impl FnOnce(&mut Value)) -> String {
    let error = crafted(change).unwrap_err().to_string();
    error
        .strip_prefix("crafted.json: not a usable tokenizer: ")
        .unwrap_or_else(|| panic!("{error}"))
        .to_owned()
}

#[test]
fn files_that_would_fill_the_memory_are_refused_before_the_engine_reads_them() {
    let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    let bomb = json!({"type": "Sequence", "normalizers": vec![double.clone(); 40]});
    assert!(refused(|json| json["normalizer"] = bomb).ends_with("normalizer: Sequence"));
    let decoders = json!({"type": "Sequence", "decoders": vec![double; 40]});
    assert!(refused(|json| json["decoder"] = decoders).ends_with("decoder: Sequence"));
    let steps = vec![json!({"type": "ByteLevel", "add_prefix_space": true, "use_regex": false}); 9];
    let many = json!({"type": "Sequence", "pretokenizers": steps});
    assert_eq!(refused(|json| json["pre_tokenizer"] = many), "pre_tokenizer has 9 steps; at most 8 are read");
    let long = "x".repeat(1 << 20);
    assert!(refused(|json| json["model"]["continuing_subword_prefix"] = long.into()).contains("is set"));
    let pattern = json!({"Regex": "(".repeat(1 << 16)});
    let split = json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false});
    assert_eq!(refused(|json| json["pre_tokenizer"] = split), "a split pattern of 65536 bytes");
}

#[test]
fn a_post_processor_that_repeats_its_input_is_not_run() {
    let repeat: Vec<Value> = vec![json!({"Sequence": {"id": "A", "type_id": 0}}); 1000];
    let repeat =
        json!({"type": "TemplateProcessing", "single": repeat, "pair": repeat, "special_tokens": {}});
    let tokenizer = crafted(|json| json["post_processor"] = repeat).unwrap();
    assert_eq!(tokenizer.encode_text("one two").unwrap(), tiny().tokenizer().encode_text("one two").unwrap());
}

#[test]
fn engines_other_than_byte_level_bpe_are_refused() {
    for model in [
        json!({"type": "Unigram", "unk_id": 7, "vocab": []}),
        json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "?"}),
        json!({"type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "##",
               "max_input_chars_per_word": 100, "vocab": {}}),
    ] {
        let name = model["type"].as_str().unwrap().to_owned();
        assert!(refused(|json| json["model"] = model).ends_with(&format!("model: {name}")));
    }
    let garbage = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"});
    assert!(refused(|json| json["normalizer"] = garbage).ends_with("normalizer: Precompiled"));
    assert!(refused(|json| json["pre_tokenizer"] = json!({"type": "Metaspace"})).ends_with("Metaspace"));
    assert!(refused(|json| json["pre_tokenizer"] = Value::Null).ends_with("pre_tokenizer: none"));
    assert!(refused(|json| json["decoder"] = Value::Null).ends_with("decoder: none"));
}

#[test]
fn a_pattern_without_end_costs_moments_and_is_an_error() {
    // Exponential in a plain backtracker: every `a` can be taken by either branch.
    let split = |pattern: &str| {
        let regex = json!({"Regex": pattern});
        json!([{"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": false},
               {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}])
    };
    for pattern in ["(?:a|a)*b", "(?:a+)+$", "(?:a*)*c"] {
        let started = Instant::now();
        let tokenizer = crafted(|json| json["pre_tokenizer"]["pretokenizers"] = split(pattern)).unwrap();
        let text = "a".repeat(5000) + "!";
        match tokenizer.encode_text(&text) {
            Ok(ids) => assert_eq!(tokenizer.decode(&ids).unwrap(), text),
            Err(error) => assert!(matches!(error, Error::Encode { .. }), "{error}"),
        }
        assert!(started.elapsed() < Duration::from_mins(1), "{pattern}: {:?}", started.elapsed());
    }
    for broken in ["(", "[", "(?<x", "a{99999999}", "\\p{Nope}", "(?R"] {
        assert!(crafted(|json| json["pre_tokenizer"]["pretokenizers"] = split(broken)).is_err(), "{broken}");
    }
}

#[test]
fn numbers_that_are_no_ids_and_tables_that_contradict_themselves_are_refused() {
    let last = |id: Value| {
        move |json: &mut Value| {
            let vocab = json["model"]["vocab"].as_object_mut().unwrap();
            *vocab.values_mut().next_back().unwrap() = id;
        }
    };
    assert!(!refused(last((-1).into())).is_empty());
    assert!(!refused(last(json!(1_u64 << 40))).is_empty());
    assert!(!refused(|json| json["model"]["merges"] = json!([["no such", "token"]])).is_empty());
    assert!(!refused(|json| json["model"]["merges"] = json!(["abc"])).is_empty());
    assert!(!refused(|json| json["model"]["vocab"] = json!({})).is_empty());
    assert!(!refused(|json| json["added_tokens"][0]["id"] = u32::MAX.into()).is_empty());
    // The largest id there is, on a token that nothing produces: nothing is allocated by it.
    let huge = crafted(last(u32::MAX.into()));
    if let Ok(tokenizer) = huge {
        assert!(tokenizer.decode(&[u32::MAX, u32::MAX - 1]).is_ok());
    }
    let text = std::fs::read_to_string(fixtures().join("tiny/tokenizer.json")).unwrap();
    let deep = |part: &str| {
        let nested = format!("\"{part}\": {}{}", "[".repeat(100_000), "]".repeat(100_000));
        let deep = text.replacen(&format!("\"{part}\": null"), &nested, 1);
        assert!(deep.len() > 200_000);
        Tokenizer::from_bytes(deep.as_bytes(), "deep.json")
    };
    assert!(deep("normalizer").is_err());
    // What is not read is passed over, however deep.
    assert!(deep("truncation").is_ok());
}

#[test]
fn a_file_over_the_limit_is_not_read() {
    let bytes = vec![b' '; limits::TOKENIZER_BYTES as usize + 1];
    assert!(matches!(Tokenizer::from_bytes(&bytes, "x"), Err(Error::FileTooLarge { .. })));
    let file = tempfile::tempdir().unwrap();
    let sparse = std::fs::File::create(file.path().join("tokenizer.json")).unwrap();
    sparse.set_len(4 << 30).unwrap();
    assert!(matches!(Tokenizer::load(file.path()), Err(Error::FileTooLarge { .. })));
}
