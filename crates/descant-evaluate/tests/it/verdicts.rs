//! 480 replies with the verdicts that they must get, and the listed ones that the judge is known to get wrong.

use std::path::PathBuf;
use std::sync::LazyLock;

use descant_evaluate::{Answer, Asked, Detector, Language, judge, recipients};
use descant_harmony::{TextEncoder as _, Tokenizer};
use serde_json::{Value as Json, json};

pub(crate) fn fixtures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/evaluate"))
}

pub(crate) fn lines(name: &str) -> Vec<Json> {
    let text = std::fs::read_to_string(fixtures().join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The published tokenizer, rebuilt once.
pub(crate) static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::gpt_oss().unwrap());

fn verdict(row: &Json, detector: &Detector) -> Json {
    let ids = TOKENIZER.encode_rendered(row["reply"].as_str().unwrap()).unwrap();
    let names = row["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<&str> = names.iter().filter_map(Json::as_str).collect();
    let asked = Asked {
        prompt: row["prompt"].as_str().unwrap(),
        language: row["asked"].as_str().and_then(Language::from_code),
        answer_language: None,
        answer: &Answer::from_json(&row["answer"]).unwrap(),
        tools: &recipients(&names),
    };
    serde_json::to_value(judge(&ids, asked, &TOKENIZER, detector)).unwrap()
}

#[test]
fn every_verdict_is_reproduced_and_the_known_errors_are_the_listed_ones() {
    let detector = Detector::new(&[]);
    let mut wrong = Vec::new();
    let mut listed = 0;
    let rows = lines("verdicts.jsonl");
    for row in &rows {
        let got = verdict(row, &detector);
        for (key, expected) in row["expected"].as_object().unwrap() {
            let known = row["judge_says"].get(key);
            listed += usize::from(known.is_some());
            if got.get(key).unwrap_or(&json!(null)) != known.unwrap_or(expected) {
                wrong.push(format!(
                    "{}: {key} is {}, expected {expected} {}",
                    row["id"], got[key], got["shares"]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!((rows.len(), listed), (480, 10));
}

/// English reasoning is not a hit, whichever of sixteen languages was asked for.
#[test]
fn a_language_that_was_asked_for_is_not_found_where_it_is_not() {
    let detector = Detector::new(&[]);
    let rows = lines("verdicts.jsonl");
    let controls: Vec<&Json> =
        rows.iter().filter(|row| row["id"].as_str().unwrap().contains("-control-")).collect();
    assert_eq!(controls.len(), 16);
    for row in controls {
        let got = verdict(row, &detector);
        assert_eq!((&got["hit"], &got["reasoning_language"]), (&json!(false), &json!("en")), "{}", row["id"]);
    }
}
