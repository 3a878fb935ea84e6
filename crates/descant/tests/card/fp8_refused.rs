//! Whole runs with experts in fp8: one that is beyond a gate is refused before anything is written, continues where a warning
//! is wanted, and one within all gates says its figures and no more.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::card_alone;
use crate::models::{Case, fp8_every_expert, fp8_quiet};

/// The program, which is built beside its tests.
fn program() -> PathBuf {
    let tests = std::env::current_exe().expect("this program");
    let places = tests.ancestors().skip(1).take(2).map(|folder| folder.join("descant"));
    places.into_iter().find(|path| path.is_file()).expect("the program, beside its tests or above them")
}

/// Two steps of a case in a folder.
fn train(case: &Case, folder: &Path, sets: &[&str]) -> Output {
    let quoted = |key: &str, path: &Path| format!("{key}=\"{}\"", path.display());
    let places = [
        quoted("model.path", &case.model),
        quoted("data.path", &case.data()),
        quoted("run.folder", folder),
        "train.max_steps=2".to_owned(),
        "train.experts=\"fp8\"".to_owned(),
    ];
    let settings = case.model.with_file_name("run.toml");
    descant_files::write_atomic(&settings, b"").expect("writes");
    let mut command = Command::new(program());
    command.arg("train").arg(settings);
    for set in places.iter().map(String::as_str).chain(sets.iter().copied()) {
        command.args(["--set", set]);
    }
    command.output().expect("the program runs")
}

/// Its figures, its warnings about fp8, and the row of the model card.
fn told(folder: &Path) -> (Value, Vec<String>, String) {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect(name);
    let summary: Value = serde_json::from_str(&read("summary.json")).expect("JSON");
    let warnings = summary["warnings"].as_array().expect("a list").iter();
    let warnings = warnings.filter_map(Value::as_str).filter(|text| text.contains("fp8")).map(str::to_owned);
    let card = read("adapter/README.md");
    let row = card.lines().find(|line| line.contains("in training steps")).expect("a row of the recipe");
    (summary["experts_deviation"].clone(), warnings.collect(), row.to_owned())
}

#[test]
#[ignore = "needs a card"]
fn a_run_beyond_a_gate_is_refused_and_leaves_nothing_unless_a_warning_is_wanted() {
    let _card = card_alone();
    let case = fp8_every_expert();
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("run");
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let refused = train(&case, &folder, &[]);
    let error = said(&refused);
    println!("{error}");
    assert_eq!(refused.status.code(), Some(2), "{error}");
    assert!(error.contains("too far from bf16") && error.contains("guard.on_deviation=warn"), "{error}");
    assert!(!folder.exists(), "nothing was written");

    let warned = train(&case, &folder, &["guard.on_deviation=\"warn\""]);
    let error = said(&warned);
    assert_eq!(warned.status.code(), Some(0), "{error}");
    let (deviation, warnings, row) = told(&folder);
    assert!(error.contains("fp8 beside bf16") && row.contains("fp8 beside bf16"), "{error}\n{row}");
    assert!(deviation["divergence"].as_f64().is_some_and(|nats| nats > 0.0), "{deviation}");
    assert!(warnings.len() == 1 && warnings[0].contains("at most"), "{warnings:?}");
}

#[test]
#[ignore = "needs a card"]
fn a_run_within_all_gates_says_its_figures_and_no_more() {
    let _card = card_alone();
    let case = fp8_quiet();
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("run");
    let output = train(&case, &folder, &[]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{error}");
    assert_eq!(output.status.code(), Some(0), "{error}");
    let (deviation, warnings, row) = told(&folder);
    assert!(
        deviation["zero_gradients"] == deviation["gradients"],
        "every A while its B is zero: {deviation}"
    );
    assert!(warnings.is_empty() && row.contains("fp8 beside bf16"), "{warnings:?}\n{row}");
}
