//! What a run says it will need against what it took, and what becomes of one that does not fit.

use std::path::Path;
use std::process::{Command, Output};

use descant_testkit::scratch;
use serde_json::Value;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss");

fn train(folder: &Path, sets: &[&str]) -> Output {
    descant(&["train", "-q", "--device", "cpu"], folder, sets)
}

/// A command on settings of two steps of the tiny model.
fn descant(command_line: &[&str], folder: &Path, sets: &[&str]) -> Output {
    let settings = folder.with_extension("toml");
    descant_files::write_atomic(&settings, b"").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_descant"));
    command.args(command_line).arg(&settings);
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

#[test]
fn an_evaluation_that_does_not_fit_is_refused_before_anything_is_loaded_or_written() {
    let dir = scratch();
    let evaluate = |limit: &str, out: &str| {
        let out = dir.path().join(out);
        let held_out = format!("data.held_out={TINY}/data/held-out.jsonl");
        let few = "evaluate.prompts=1";
        let arguments = ["evaluate", "--out", out.to_str().unwrap()];
        let short = "evaluate.max_new_tokens=8";
        (descant(&arguments, &dir.path().join("run"), &[limit, &held_out, few, short]), out)
    };
    let (refused, out) = evaluate("memory.limit=1MB", "refused");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.starts_with("error: not enough memory on cpu\n  needs "), "{said}");
    assert!(said.contains("hint: raise the limit, ask shorter prompts"), "{said}");
    assert!(refused.stdout.is_empty() && !out.exists());
    // The control: a limit that is large enough changes nothing.
    let (allowed, out) = evaluate("memory.limit=8GiB", "allowed");
    assert!(allowed.status.success(), "{}", String::from_utf8_lossy(&allowed.stderr));
    assert!(out.join("samples.jsonl").is_file());
}

/// The JSON of a plan, and its status.
fn plan(command_line: &[&str], sets: &[&str]) -> (Value, Option<i32>) {
    let dir = scratch();
    let output = descant(&[&["plan", "--json"], command_line].concat(), &dir.path().join("run"), sets);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!dir.path().join("run").exists(), "a plan writes nothing");
    (serde_json::from_slice(&output.stdout).expect(&said), output.status.code())
}

#[test]
fn a_plan_says_what_a_run_then_does() {
    let sets = ["train.micro_batch=4", "train.accumulation=2", "train.optimizer=adamw_8bit"];
    let (plan, code) = plan(&["--device", "cpu"], &sets);
    assert_eq!((code, &plan["fits"]), (Some(0), &Value::Bool(true)));
    let dir = scratch();
    let folder = dir.path().join("run");
    let (planned, _) = bytes(&folder, &sets);
    // A run has read the same and holds as much; what it used before is in its figure alone.
    let needs = plan["memory_bytes"]["total"].as_f64().unwrap();
    assert!(planned > needs && planned - needs < 64.0 * f64::from(1 << 20), "{planned} {needs}");
    let summary: Value =
        serde_json::from_slice(&std::fs::read(folder.join("summary.json")).unwrap()).unwrap();
    for (of_plan, of_run) in
        [("trained_parameters", "trained_parameters"), ("steps", "steps"), ("tokens", "tokens")]
    {
        assert_eq!(plan[of_plan], summary[of_run], "{of_plan}");
    }
    let newest = folder.join("checkpoints/step-000002");
    let files = std::fs::read_dir(&newest).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    let (said, written) = (plan["disk_bytes"]["checkpoint"].as_u64().unwrap(), files.sum::<u64>());
    assert!((said..said + 131_072).contains(&written), "{said} {written}");
    let adapter = std::fs::metadata(folder.join("adapter/adapter_model.safetensors")).unwrap().len();
    let said = plan["disk_bytes"]["adapter"].as_u64().unwrap();
    assert!((said..said + 65_536).contains(&adapter), "{said} {adapter}");
    assert!(plan["seconds_at_least"].as_f64().is_some_and(|seconds| seconds > 0.0));
}

#[test]
fn a_plan_for_a_card_needs_none_and_says_when_it_is_too_small() {
    let (large, code) = plan(&["--card", "24GiB"], &[]);
    assert_eq!((code, &large["fits"]), (Some(0), &Value::Bool(true)));
    let memory = &large["memory_bytes"];
    let of = |key: &str| memory[key].as_u64().unwrap();
    assert_eq!(of("least"), of("total") - of("kept_because_there_is_room"));
    assert!(large["seconds_at_least"].is_null(), "nobody knows that card's speed");
    let (small, code) = plan(&["--card", "600MiB"], &["train.micro_batch=16"]);
    assert_eq!((code, &small["fits"]), (Some(1), &Value::Bool(false)));
    assert!(small["advice"].as_str().unwrap().contains("one conversation at a time needs"), "{small}");
}

/// What a run ends with.
fn adapter(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("adapter/adapter_model.safetensors")).unwrap()
}

/// Takes a run back to its first step, as if it had been stopped there.
fn back_to_step_1(folder: &Path) {
    for made in ["checkpoints/step-000002", "adapter"] {
        std::fs::remove_dir_all(folder.join(made)).unwrap();
    }
    std::fs::remove_file(folder.join("summary.json")).unwrap();
}

#[test]
fn what_auto_chose_is_the_step_of_that_number_and_a_resumed_run_keeps_it() {
    let auto = ["train.micro_batch=auto", "train.accumulation=16", "run.save_every=1"];
    let limited = [&auto[..], &["memory.limit=90MiB"]].concat();
    // What fits under the limit is known from the advice for a number that does not.
    let (free, code) = plan(&["--device", "cpu"], &auto);
    assert_eq!((code, &free["micro_batch"], &free["accumulation"]), (Some(0), &16.into(), &1.into()));
    let dir = scratch();
    let run = |name: &str, sets: &[&str]| {
        let output = train(&dir.path().join(name), sets);
        (dir.path().join(name), output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (begun, code, said) = run("begun", &limited);
    assert_eq!(code, Some(0), "{said}");
    let identity: Vec<(String, String)> =
        serde_json::from_slice(&std::fs::read(begun.join("identity.json")).unwrap()).unwrap();
    let (_, chosen) = identity.iter().find(|(name, _)| name == "sequences at once").unwrap();
    let at_once: usize = chosen.parse().unwrap();
    assert!(at_once < 16 && 16 % at_once == 0, "{at_once}");
    let whole = adapter(&begun);
    let by_hand = [format!("train.micro_batch={at_once}"), format!("train.accumulation={}", 16 / at_once)];
    let by_hand: Vec<&str> = by_hand.iter().map(String::as_str).collect();
    assert_eq!(whole, adapter(&run("by-hand", &by_hand).0), "the number by hand is the same run");
    // With all the room there is a fresh run takes more at once, and has other bits; the one that is resumed does not.
    let (fresh, ..) = run("fresh", &auto);
    assert_ne!(whole, adapter(&fresh), "the control: the number shows");
    back_to_step_1(&begun);
    let (_, code, said) = run("begun", &auto);
    assert_eq!((code, adapter(&begun)), (Some(0), whole), "{said}");
    // And one that was begun with more than now fits says so.
    back_to_step_1(&fresh);
    let (_, code, said) = run("fresh", &limited);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("hint: this run was begun with 16 sequences at once"), "{said}");
    assert!(fresh.join("checkpoints/step-000001").exists(), "nothing was lost");
    let wrong = train(&dir.path().join("wrong"), &["train.micro_batch=most"]);
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(said.contains("--set train.micro_batch=most") && said.contains("\"auto\""), "{said}");
}

#[test]
fn prompts_are_asked_as_many_at_once_as_fit_and_a_run_under_the_limit_is_the_same() {
    let held_out = format!("data.held_out={TINY}/data/held-out.jsonl");
    let asked = [&held_out, "evaluate.prompts=6", "evaluate.batch=64", "evaluate.max_new_tokens=40"];
    // Steps that need less than prompts do.
    let small = ["train.micro_batch=1", "train.accumulation=16", "evaluate.max_new_tokens=4000"];
    let long = [&asked[..], &small].concat();
    let of = |plan: &Value, key: &str| plan["memory_bytes"][key].as_u64().unwrap();
    let (free, code) = plan(&["--device", "cpu"], &long);
    assert_eq!((code, &free["fits"]), (Some(0), &Value::Bool(true)));
    let wanted = free["held_out_prompts_at_once"].as_u64().unwrap();
    assert!(wanted > 8 && of(&free, "held_out_prompts") > 64 << 20, "{free}");
    // Room for the steps, and for some of the prompts: what the process holds before is known from the peaks.
    let held = free["peak_bytes"]["training"].as_u64().unwrap()
        - (of(&free, "total").min(
            of(&free, "base")
                + of(&free, "adapter")
                + of(&free, "gradients")
                + of(&free, "optimizer")
                + of(&free, "activations")
                + of(&free, "runtime"),
        ));
    let some =
        of(&free, "base") + of(&free, "adapter") + of(&free, "runtime") + of(&free, "held_out_prompts") / 2;
    let limit = format!("memory.limit={:.3}MiB", (held + some + some / 19) as f64 / f64::from(1 << 20));
    let (less, code) = plan(&["--device", "cpu"], &[&long[..], &[&limit]].concat());
    assert_eq!((code, &less["fits"]), (Some(0), &Value::Bool(true)), "{less}");
    let fewer = less["held_out_prompts_at_once"].as_u64().unwrap();
    assert!((1..wanted).contains(&fewer), "{fewer} of {wanted}");
    assert_eq!(less["micro_batch"], free["micro_batch"]);
    let dir = scratch();
    let whole = train(&dir.path().join("whole"), &asked);
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    let one = train(&dir.path().join("one"), &[&asked[..], &["evaluate.batch=1"]].concat());
    assert!(one.status.success(), "{}", String::from_utf8_lossy(&one.stderr));
    assert_eq!(adapter(&dir.path().join("whole")), adapter(&dir.path().join("one")));
}
