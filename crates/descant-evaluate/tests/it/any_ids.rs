//! Whatever ids a model gives, the judge gives a verdict.

use descant_evaluate::{Answer, Asked, Detector, Language, judge};
use descant_harmony::TextEncoder as _;
use descant_testkit::Dice;
use serde_json::json;

use crate::verdicts::{TOKENIZER, lines};

/// Replies of the table with ids replaced, removed, repeated and cut.
#[test]
fn no_ids_make_the_judge_panic() {
    let detector = Detector::new(&[]);
    let rows = lines("verdicts.jsonl");
    let answers = [
        json!({"kind": "number", "value": "18"}),
        json!({"kind": "roots", "value": ["1.31729", "-1.82303", "-2.78341"]}),
        json!({"kind": "text", "value": "Au", "contains": true}),
        json!({"kind": "choice", "value": "B"}),
        json!({"kind": "regex", "value": "a.b"}),
    ];
    let answers: Vec<Answer> = answers.iter().map(|json| Answer::from_json(json).unwrap()).collect();
    let control = TOKENIZER.control();
    let controls = [
        control.start,
        control.message,
        control.end,
        control.return_,
        control.call,
        control.channel,
        control.constrain,
        control.endoftext,
        u32::MAX,
        199_997,
    ];
    let mut dice = Dice::new(1);
    let mut valid = 0;
    for round in 0..400 {
        let row = &rows[dice.below(rows.len())];
        let mut ids = TOKENIZER.encode_rendered(row["reply"].as_str().unwrap()).unwrap();
        for _ in 0..dice.below(4) {
            let at = dice.below(ids.len().max(1));
            match dice.below(4) {
                0 => ids.insert(at.min(ids.len()), controls[dice.below(controls.len())]),
                1 => ids.truncate(at),
                2 if at < ids.len() => ids[at] = dice.below(201_088) as u32,
                _ if at < ids.len() => _ = ids.remove(at),
                _ => {}
            }
        }
        let asked = Asked {
            prompt: row["prompt"].as_str().unwrap(),
            language: Language::from_code("fr"),
            answer_language: None,
            answer: &answers[round % answers.len()],
            tools: &[],
        };
        let verdict = judge(&ids, asked, &TOKENIZER, &detector);
        valid += usize::from(verdict.harmony == "valid");
        assert!(verdict.analysis_tokens <= ids.len());
    }
    assert!((50..350).contains(&valid), "some are damaged and some are not: {valid}");
}
