//! Evaluations and statistics as the reference computes them, integers equal and floats to 1e-9.

use descant_evaluate::statistics::{Pairs, SplitMix, bootstrap, wilson};
use descant_evaluate::{Detector, Evaluation, Judged, Samples, Suite, verdicts};
use serde_json::Value as Json;

use crate::verdicts::{TOKENIZER, fixtures, lines};

const CLOSE: f64 = 1e-9;

/// Where two values differ by more than rounding.
fn differences(at: &str, got: &Json, expected: &Json, out: &mut Vec<String>) {
    match (got, expected) {
        (Json::Object(a), Json::Object(b)) => {
            for key in a.keys().chain(b.keys()) {
                let (x, y) = (a.get(key).unwrap_or(&Json::Null), b.get(key).unwrap_or(&Json::Null));
                differences(&format!("{at}.{key}"), x, y, out);
            }
        }
        (Json::Array(a), Json::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().for_each(|(i, (x, y))| differences(&format!("{at}[{i}]"), x, y, out));
        }
        (Json::Number(a), Json::Number(b)) if a.is_f64() || b.is_f64() => {
            if (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() > CLOSE {
                out.push(format!("{at}: {a}, expected {b}"));
            }
        }
        _ if got == expected => {}
        _ => out.push(format!("{at}: {got}, expected {expected}")),
    }
}

fn evaluation(before: &str, after: Option<&str>) -> Json {
    let suite = Suite::from_file(&fixtures().join("golden/questions.jsonl")).unwrap();
    let detector = Detector::new(&[]);
    let read = |name: &str| Samples::read(&fixtures().join("golden").join(name)).unwrap();
    let judged = |samples: &Samples| verdicts(&suite, samples, &TOKENIZER, &detector).unwrap();
    let before = read(before);
    let before_verdicts = judged(&before);
    let after = after.map(read);
    let after_verdicts = after.as_ref().map(judged);
    let after = after.as_ref().zip(after_verdicts.as_ref());
    let after = after.map(|(samples, verdicts)| Judged { samples, verdicts });
    let before = Judged { samples: &before, verdicts: &before_verdicts };
    serde_json::to_value(Evaluation::new(&suite, before, after)).unwrap()
}

fn golden(name: &str) -> Json {
    serde_json::from_slice(&std::fs::read(fixtures().join("golden").join(name)).unwrap()).unwrap()
}

#[test]
fn golden_evaluations_are_reproduced_and_exchanged_sides_are_not() {
    for (before, after, expected) in [
        ("before.jsonl", "after.jsonl", "evaluation.json"),
        ("one-effort-before.jsonl", "one-effort-after.jsonl", "evaluation-one-effort.json"),
        ("few-before.jsonl", "few-after.jsonl", "evaluation-few.json"),
    ] {
        let mut found = Vec::new();
        differences("", &evaluation(before, Some(after)), &golden(expected), &mut found);
        assert!(found.is_empty(), "{expected}\n{}", found.join("\n"));
        differences("", &evaluation(after, Some(before)), &golden(expected), &mut found);
        assert!(!found.is_empty(), "exchanged sides are distinguished");
    }
}

#[test]
fn one_side_alone_has_counts_and_no_claims() {
    let alone = evaluation("before.jsonl", None);
    assert_eq!(alone["before"], evaluation("before.jsonl", Some("after.jsonl"))["before"]);
    for key in ["after", "changes", "spill_over", "headline"] {
        assert!(alone.get(key).is_none(), "{key}");
    }
}

#[test]
fn statistics_are_the_references() {
    let close = |got: f64, expected: &Json| {
        assert!((got - expected.as_f64().unwrap()).abs() < CLOSE, "{got}, expected {expected}");
    };
    let mut rows = 0;
    for row in lines("statistics.jsonl") {
        rows += 1;
        if let Some(first) = row["first"].as_array() {
            let mut random = SplitMix::new(row["splitmix_seed"].as_u64().unwrap());
            for number in first {
                assert_eq!(random.draw(), number.as_u64().unwrap());
            }
        } else if let Some(kn) = row["wilson"].as_array() {
            let found = wilson(kn[0].as_u64().unwrap(), kn[1].as_u64().unwrap());
            close(found.low, &row["interval"][0]);
            close(found.high, &row["interval"][1]);
        } else if let Some(values) = row["bootstrap"].as_array() {
            let found = bootstrap(&values.iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>());
            close(found.low, &row["interval"][0]);
            close(found.high, &row["interval"][1]);
        } else {
            let count = |key: &str| row["paired"][key].as_u64().unwrap();
            let pairs = Pairs {
                both: count("both"),
                gained: count("gained"),
                lost: count("lost"),
                neither: count("neither"),
            };
            let found = pairs.difference();
            let got = [found.difference, found.interval.low, found.interval.high, found.mcnemar_p];
            got.into_iter().enumerate().for_each(|(at, got)| close(got, &row["result"][at]));
        }
    }
    assert_eq!(rows, 20);
}

#[test]
fn nothing_one_and_equal_values_have_intervals() {
    assert_eq!(
        (wilson(0, 0).low.to_bits(), wilson(0, 0).high.to_bits()),
        (0.0_f64.to_bits(), 1.0_f64.to_bits())
    );
    let one = bootstrap(&[0.5]);
    assert!((one.low - 0.5).abs() < CLOSE && (one.high - 0.5).abs() < CLOSE);
    let large = Pairs { both: 0, gained: 5000, lost: 5000, neither: 0 }.difference();
    assert!((large.mcnemar_p - 1.0).abs() < 1e-6 && large.difference.abs() < CLOSE, "{large:?}");
}
