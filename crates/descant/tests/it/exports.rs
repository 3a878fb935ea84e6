//! `descant export` from outside: killed, stopped, refused, and what it prints.

use std::path::Path;
use std::process::{Command, Stdio};

use descant_testkit::scratch;
use serde_json::Value;

use crate::binary::{OWN, Ran, descant, descant_with, root};

const ADAPTER: &str = "fixtures/golden/export/adapter-attn";

/// Runs an export of the golden set's adapter on attention into `folder`.
fn export(folder: &Path, form: &str, out: &str, more: &[&str], fault: &[(&str, &str)]) -> Ran {
    let (adapter, model) = (root().join(ADAPTER), root().join("fixtures/golden/export/base"));
    let (adapter, model) = (adapter.to_str().unwrap(), model.to_str().unwrap());
    let arguments = ["export", "--adapter", adapter, "--model", model, "--to", form, "--out", out];
    descant_with(folder, &[&arguments[..], more].concat(), fault)
}

/// The names in a folder that are not temporary.
fn names(folder: &Path) -> Vec<String> {
    let mut names = descant_files::list(folder).unwrap();
    names.retain(|name| !descant_files::is_temporary(name));
    names
}

#[test]
fn an_export_that_is_killed_anywhere_leaves_nothing_that_looks_done() {
    for (form, out) in [("bf16", "out"), ("gguf", "out.gguf")] {
        let dir = scratch();
        let (adapter, model) = (root().join(ADAPTER), root().join("fixtures/golden/export/base"));
        let run = |fault: Option<u64>| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_descant"));
            for name in OWN {
                command.env_remove(name);
            }
            command.current_dir(dir.path()).args(["-q", "export", "--to", form, "--out", out]);
            command.arg("--adapter").arg(&adapter).arg("--model").arg(&model);
            command.envs(fault.map(|after| ("DESCANT_FAULT", format!("kill:{after}"))));
            command.stdout(Stdio::null()).status().unwrap()
        };
        let mut kills = 0;
        // A few operations at a time: each pair of file and folder is met.
        for after in (0..).step_by(3) {
            let status = run(Some(after));
            if status.success() {
                break;
            }
            assert_eq!(status.code(), None, "killed");
            kills += 1;
            let there = names(dir.path());
            assert!(!there.iter().any(|name| name == out), "{form} {after}: {there:?}");
            // What was written beside the file before it is not taken for an export, but it is in the way.
            for name in there {
                std::fs::remove_file(dir.path().join(name)).unwrap();
            }
        }
        assert!(kills >= 4, "{kills}");
        std::fs::remove_dir_all(dir.path().join(out))
            .or_else(|_| std::fs::remove_file(dir.path().join(out)))
            .unwrap();
        for name in names(dir.path()) {
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
        // The next one works, and takes away what the killed ones left.
        assert!(run(None).success());
        let left = descant_files::list(dir.path()).unwrap();
        assert!(left.iter().all(|name| !descant_files::is_temporary(name)), "{left:?}");
    }
}

#[test]
fn a_full_disk_and_a_place_that_takes_no_files_are_errors_with_a_reason() {
    let dir = scratch();
    for form in ["peft-folded", "bf16", "mxfp4", "gguf"] {
        let ran = export(dir.path(), form, "out", &[], &[("DESCANT_FAULT", "full:2+")]);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{}", ran.err);
        assert!(ran.err.starts_with("model ") && ran.err.contains("error: write out.tmp-"), "{}", ran.err);
        assert!(descant_files::list(dir.path()).unwrap().is_empty());
    }
    for out in ["/proc/export", "no/such/folder/out", "/dev/null/out"] {
        let ran = export(dir.path(), "bf16", out, &[], &[]);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{}", ran.err);
        assert!(ran.err.contains("error: ") && ran.err.contains(out), "{}", ran.err);
    }
}

#[test]
fn what_stands_at_the_target_is_not_touched_without_force() {
    let dir = scratch();
    std::fs::create_dir(dir.path().join("out")).unwrap();
    descant_files::write_atomic(&dir.path().join("out/notes.txt"), b"mine").unwrap();
    for (more, said) in [(&[][..], "already exists"), (&["--force"][..], "it is not an export")] {
        let ran = export(dir.path(), "bf16", "out", more, &[]);
        assert!(ran.code == 2 && ran.err.contains(said), "{}", ran.err);
        assert_eq!(std::fs::read_to_string(dir.path().join("out/notes.txt")).unwrap(), "mine");
        assert_eq!(descant_files::list(&dir.path().join("out")).unwrap(), ["notes.txt"]);
    }
}

#[cfg(unix)]
#[test]
fn a_signal_ends_an_export_and_leaves_nothing() {
    let dir = scratch();
    // A reader that never reads: the line of progress is written, and the signal comes before the export is whole.
    let (adapter, model) = (root().join(ADAPTER), root().join("fixtures/golden/export/base"));
    for _ in 0..20 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_descant"));
        for name in OWN {
            command.env_remove(name);
        }
        command.current_dir(dir.path()).args(["export", "--to", "bf16", "--out", "out"]);
        command.arg("--adapter").arg(&adapter).arg("--model").arg(&model);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // It says which model it takes before it begins.
        let mut byte = [0];
        std::io::Read::read_exact(child.stderr.as_mut().unwrap(), &mut byte).unwrap();
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let ended = child.wait().unwrap();
        match ended.code() {
            Some(0) => std::fs::remove_dir_all(dir.path().join("out")).unwrap(),
            // The signal's own end, before it is caught, or ours.
            other => assert!(other == Some(143) || other.is_none(), "{other:?}"),
        }
        assert!(descant_files::list(dir.path()).unwrap().is_empty());
    }
}

#[test]
fn the_account_is_one_object_and_the_file_beside_the_export() {
    let dir = scratch();
    let ran = export(dir.path(), "mxfp4", "out", &["--json"], &[]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let printed: Value = serde_json::from_str(&ran.out).unwrap();
    let kept: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("out/export.json")).unwrap()).unwrap();
    assert_eq!(printed, kept);
    assert_eq!(printed["form"], "mxfp4");
    assert!(printed["survival"]["along"].as_f64().unwrap() > 0.9);
    assert_eq!(printed["weights"].as_array().unwrap().len() as u64, printed["changed"].as_u64().unwrap());
    // The page of a pipe is 100 columns.
    let table = export(dir.path(), "mxfp4", "other", &[], &[]).out;
    assert!(
        table.contains("\nweights     ") && table.lines().all(|line| line.chars().count() <= 100),
        "{table}"
    );
    let card = std::fs::read_to_string(dir.path().join("out/README.md")).unwrap();
    // The golden adapter names no repository, and a card has the name of one or none.
    assert!(!card.contains("base_model") && card.contains("# A local gpt-oss, fine-tuned"), "{card}");
    assert!(card.contains("of it in the export"), "{card}");
}

#[test]
fn a_rule_for_experts_is_refused_where_the_form_packs_none() {
    let dir = scratch();
    for form in ["peft", "peft-folded", "mlx-adapter", "gguf-lora", "bf16"] {
        let ran = export(dir.path(), form, "out", &["--experts", "nearest"], &[]);
        assert!(ran.code == 2 && ran.err.contains(&format!("--to is {form}")), "{}", ran.err);
        assert!(ran.err.contains("hint: leave it out"), "{}", ran.err);
    }
    assert!(descant_files::list(dir.path()).unwrap().is_empty());
    assert_eq!(export(dir.path(), "gguf", "out", &["--experts", "nearest"], &[]).code, 0);
}

#[test]
fn a_folder_with_a_gguf_file_has_a_card_and_a_file_alone_has_none() {
    let dir = scratch();
    assert_eq!(export(dir.path(), "gguf", "out", &[], &[]).code, 0);
    let card = std::fs::read_to_string(dir.path().join("out/README.md")).unwrap();
    assert!(card.contains("| GGUF: experts in MXFP4, the rest in BF16 |"), "{card}");
    assert!(card.contains("of it in the export"), "{card}");
    assert_eq!(export(dir.path(), "gguf", "x.gguf", &[], &[]).code, 0);
    assert_eq!(names(dir.path()), ["out", "x.Modelfile", "x.export.json", "x.gguf"]);
}

#[test]
fn a_proof_without_rows_is_refused_before_anything_is_written() {
    let dir = scratch();
    let ran = export(dir.path(), "bf16", "out", &["--prove"], &[]);
    assert!(ran.code == 2 && ran.err.contains("hint: write --prove FILE"), "{}", ran.err);
    let ran = export(dir.path(), "bf16", "out", &["--prove", "none.jsonl"], &[]);
    assert!(ran.code == 2 && ran.err.contains("none.jsonl"), "{}", ran.err);
    assert!(descant_files::list(dir.path()).unwrap().is_empty());
    assert_eq!(descant(dir.path(), &["export", "--to", "bf16", "--out", "x"]).code, 2);
}

#[test]
fn a_proof_that_fails_ends_with_status_1_and_stands_in_the_account_and_the_card() {
    let dir = scratch();
    let rows = root().join("fixtures/tiny-gpt-oss/data/held-out.jsonl");
    let few: Vec<String> =
        std::fs::read_to_string(rows).unwrap().lines().take(3).map(str::to_owned).collect();
    descant_files::write_atomic(&dir.path().join("rows.jsonl"), few.join("\n").as_bytes()).unwrap();
    let model = root().join("fixtures/golden/export/base");
    let prove = |adapter: &str, out: &str, more: &[&str]| {
        let adapter = root().join("fixtures/golden/export").join(adapter);
        let arguments =
            ["export", "--adapter", adapter.to_str().unwrap(), "--model", model.to_str().unwrap()];
        let rest = ["--to", "mxfp4", "--out", out, "--prove", "rows.jsonl"];
        let ran = descant(dir.path(), &[&arguments[..], &rest, more].concat());
        let account = std::fs::read(dir.path().join(out).join("export.json")).unwrap();
        (ran, serde_json::from_slice::<Value>(&account).unwrap()["proof"].clone())
    };
    // Attention alone: experts keep every byte.
    let (ran, proof) = prove("adapter-attn", "good", &[]);
    assert!(ran.code == 0 && proof["passed"] == true, "{}{proof}", ran.err);
    let card = std::fs::read_to_string(dir.path().join("good/README.md")).unwrap();
    assert!(card.contains("held-out loss of base, adapter, this export"), "{card}");
    // Within a limit, which holds for the base before it is loaded; the export was made before.
    let (ran, proof) = prove("adapter-attn", "limited", &["--memory", "8GB"]);
    assert!(ran.code == 0 && proof["passed"] == true, "{}{proof}", ran.err);
    let (ran, proof) = prove("adapter-attn", "small", &["--memory", "1MB"]);
    assert!(ran.code == 4 && proof.is_null(), "{}{proof}", ran.err);
    assert!(
        ran.err.contains("the export is complete") && ran.err.contains("not enough memory"),
        "{}",
        ran.err
    );
    // Experts, rounded to the nearest number: what was gained is lost.
    let (ran, proof) = prove("adapter-all", "bad", &["--experts", "nearest", "--allow-loss"]);
    assert!(ran.code == 1 && proof["passed"] == false, "{}{proof}", ran.err);
    let reason = proof["reason"].as_str().unwrap();
    assert!(
        reason.contains("of the loss that the adapter gains is kept") && ran.out.contains(reason),
        "{}",
        ran.out
    );
}
