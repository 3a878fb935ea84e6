//! What a run says it will need against what it took, and what becomes of one that does not fit.

use std::path::Path;
use std::process::{Command, Output};

use descant_testkit::scratch;
use serde_json::Value;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss");

fn train(folder: &Path, sets: &[&str]) -> Output {
    let settings = folder.with_extension("toml");
    descant_files::write_atomic(&settings, b"").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_descant"));
    command.args(["train", "-q", "--device", "cpu"]).arg(&settings);
    let paths = [
        format!("model.path={TINY}"),
        format!("data.path={TINY}/data/multilingual-thinking-tiny-efforts.jsonl"),
        format!("run.folder={}", folder.display()),
        "train.max_steps=2".to_owned(),
        "train.warmup_steps=1".to_owned(),
    ];
    for set in paths.iter().map(String::as_str).chain(sets.iter().copied()) {
        command.args(["--set", set]);
    }
    command.env_remove("RUST_LOG").output().unwrap()
}

/// Bytes planned and bytes at the peak.
fn bytes(folder: &Path, sets: &[&str]) -> (f64, f64) {
    let output = train(folder, sets);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary = std::fs::read(folder.join("summary.json")).unwrap();
    let summary: Value = serde_json::from_slice(&summary).unwrap();
    let of = |key: &str| summary[key].as_f64().unwrap();
    (of("planned_memory_bytes"), of("peak_memory_bytes"))
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_takes_the_memory_that_it_said() {
    let dir = scratch();
    let all =
        r#"lora.targets=["q_proj", "k_proj", "v_proj", "o_proj", "router", "gate_up_proj", "down_proj"]"#;
    let cases: [&[&str]; 4] = [
        &["train.micro_batch=4"],
        &["train.micro_batch=16"],
        &["train.micro_batch=8", "train.accumulation=2", all],
        &["train.micro_batch=2", "train.packing=true", "train.max_sequence=1024"],
    ];
    let is_right = |planned: f64, peak: f64| (0.97..=1.10).contains(&(planned / peak));
    let mut seen = Vec::new();
    for (at, sets) in cases.into_iter().enumerate() {
        let (planned, peak) = bytes(&dir.path().join(at.to_string()), sets);
        assert!(is_right(planned, peak), "{sets:?}: planned {planned}, took {peak}");
        seen.push((planned, peak));
    }
    // The control: the plan of another run is not right.
    assert!(!is_right(seen[0].0, seen[1].1) && !is_right(seen[1].0, seen[0].1));
}

#[test]
fn a_run_that_does_not_fit_is_refused_with_settings_that_do() {
    let dir = scratch();
    let folder = dir.path().join("run");
    let limit = "memory.limit=90MiB";
    let output = train(&folder, &[limit, "train.micro_batch=16"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(
        said.starts_with("error: not enough memory on cpu\n  needs ") && said.contains("activations"),
        "{said}"
    );
    assert!(!folder.exists(), "nothing was begun");
    let hint = said.lines().find_map(|line| line.strip_prefix("hint: set ")).unwrap();
    let (advice, _) = hint.split_once(':').unwrap();
    let sets: Vec<String> = advice.split(" and ").map(|set| set.replace(' ', "")).collect();
    assert_eq!(sets.len(), 2, "{hint}");
    let sets: Vec<&str> = sets.iter().map(String::as_str).chain([limit]).collect();
    let (_, peak) = bytes(&folder, &sets);
    assert!(peak <= 90.0 * f64::from(1 << 20), "{peak}");

    let output = train(&dir.path().join("other"), &["memory.limit=30MiB"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("hint: one conversation at a time needs "), "{said}");
}
