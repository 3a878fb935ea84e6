//! The recipe's measurement, with the tiny model in place of the 20b: three efforts, few questions, the tutorial's
//! equation judged by its roots, before and after.

use std::path::Path;

use serde_json::{Value, json};

use crate::binary::{descant, root};

/// The recipe for a model that is here, as short as it can be.
fn train(folder: &Path, more: &[&str]) -> (i32, String) {
    let sets = [
        format!("run.folder={}", folder.display()),
        "model.path=fixtures/tiny-gpt-oss".to_owned(),
        "data.path=fixtures/tiny-gpt-oss/data/multilingual-thinking-tiny-efforts.jsonl".to_owned(),
        "train.max_steps=2".to_owned(),
        "train.warmup_steps=1".to_owned(),
        "train.micro_batch=2".to_owned(),
        "train.accumulation=1".to_owned(),
        "evaluate.max_new_tokens=24".to_owned(),
    ];
    let mut arguments = vec!["train", "--recipe", "multilingual-thinking", "--offline"];
    for set in sets.iter().map(String::as_str).chain(more.iter().copied()) {
        arguments.extend(["--set", set]);
    }
    let ran = descant(root(), &arguments);
    (ran.code, ran.err)
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_recipe_asks_the_tutorials_question_at_three_efforts_before_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let (code, said) = train(&folder, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("8 questions of 40 at low, medium and high effort"), "{said}");
    let evaluation: Value = serde_json::from_str(&read(&folder, "evaluation.json")).unwrap();
    let suites = evaluation["suites"].as_array().unwrap();
    assert_eq!(suites.iter().map(|suite| &suite["suite"]).collect::<Vec<_>>(), ["held-out", "tutorial"]);
    let tutorial = &suites[1];
    assert_eq!(tutorial["efforts"], json!(["low", "medium", "high"]));
    for side in ["before", "after"] {
        for effort in ["low", "medium", "high"] {
            let cells = tutorial[side]["cells"].as_array().unwrap().iter();
            let cell = cells.clone().find(|cell| cell["effort"] == effort && cell["asked"] == "any").unwrap();
            // A model of short sums knows no equation of fifth degree, and it is judged.
            assert_eq!(
                (&cell["n"], &cell["scored"], &cell["right"]),
                (&4.into(), &4.into(), &0.into()),
                "{cell}"
            );
        }
    }
    let report = read(&folder, "report.html");
    assert!(report.contains("x^5 + 3x^4 - 10 = 3"), "its replies are shown");
    for effort in ["low", "medium", "high"] {
        assert!(report.contains(&format!("<h3>{effort} <small>effort</small></h3>")), "{effort}");
    }

    // The same run, had the model replied with the roots after training: right, and with a wrong digit not.
    let forged = |roots: &str| -> f64 {
        let after = read(&folder, "samples-after.jsonl");
        let lines = after.lines().map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            if line["question"].as_str().is_some_and(|id| id.starts_with("equation-")) {
                let text = format!(
                    "<|channel|>analysis<|message|>Je cherche les racines de l'équation.<|end|><|start|>assistant<|channel|>final<|message|>{roots}<|return|>"
                );
                line["ids"] = json!([]);
                line["text"] = text.into();
                line["stop"] = "return".into();
            }
            line.to_string()
        });
        let text = lines.collect::<Vec<_>>().join("\n") + "\n";
        let path = folder.join("forged.jsonl");
        descant_files::write_atomic(&path, text.as_bytes()).unwrap();
        let before = folder.join("samples-before.jsonl");
        let [path, before] = [&path, &before].map(|path| path.to_str().unwrap());
        let ran = descant(root(), &["evaluate", "--from", path, "--before", before, "--json"]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let again: Value = serde_json::from_str(&ran.out).unwrap();
        let changes = again["suites"][1]["changes"].as_array().unwrap().clone();
        let right = changes.iter().find(|change| change["measure"] == "right" && change["asked"] == true);
        right.unwrap()["after"].as_f64().unwrap()
    };
    let all = "x ≈ 1.317, x ≈ -1.823, x ≈ -2.783";
    assert!((forged(all) - 1.0).abs() < 1e-9);
    for wrong in [
        "x ≈ 1.317, x ≈ -1.823, x ≈ -2.763",
        "x ≈ 1.317, x ≈ -1.823",
        "x ≈ 1.317, x ≈ -1.823, x ≈ -2.783, x ≈ 4",
    ] {
        assert!(forged(wrong).abs() < 1e-9, "{wrong}");
    }
}

#[test]
fn a_quick_measurement_grows_with_the_training_and_can_be_switched_off() {
    let plan = |more: &[&str]| -> String {
        let mut arguments = vec!["train", "--recipe", "multilingual-thinking", "--offline", "--dry-run"];
        for set in more {
            arguments.extend(["--set", set]);
        }
        let ran = descant(root(), &arguments);
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out
    };
    assert!(plan(&[]).contains("quick = true"));
    assert!(plan(&["evaluate.quick=false"]).contains("quick = false"));
}
