//! `descant doctor`, and the small commands of the way in: versions, completions, manual pages.

use std::path::Path;

use descant_testkit::loopback::LoopbackHub;
use descant_testkit::scratch;
use serde_json::Value;

use crate::binary::{descant, descant_with, root};
use crate::help::COMMANDS;

const CANARY: &str = "hf_CanaryThatMustNotBeSeen";

/// The checks by name.
fn doctor(home: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (Value, i32) {
    let home = home.display().to_string();
    let variables = [&[("HOME", home.as_str())], variables].concat();
    let ran = descant_with(home.as_ref(), &[&["doctor", "--json"], arguments].concat(), &variables);
    assert!(!ran.out.contains(CANARY) && !ran.err.contains(CANARY), "the token is never shown");
    let answer: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}", ran.err));
    assert_eq!(answer["ok"], ran.code == 0);
    (answer, ran.code)
}

fn check<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let checks = answer["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {answer}"))
}

#[test]
fn the_hub_is_asked_once_and_the_token_is_there_or_not() {
    let home = scratch();
    let hub = LoopbackHub::start();
    let endpoint = hub.endpoint();
    let (answer, code) = doctor(home.path(), &[], &[("HF_ENDPOINT", &endpoint), ("HF_TOKEN", CANARY)]);
    assert_eq!(code, 0, "{answer}");
    assert_eq!(check(&answer, "token")["facts"]["present"], true);
    assert_eq!(check(&answer, "network")["facts"]["answers"], true);
    assert_eq!(hub.connections(), 1);
    let (answer, _) = doctor(home.path(), &["--offline"], &[("HF_ENDPOINT", &endpoint)]);
    assert_eq!(check(&answer, "token")["facts"]["present"], false);
    assert_eq!(check(&answer, "network")["facts"]["answers"], Value::Null);
    assert_eq!(hub.connections(), 1, "offline opens no socket");
    drop(hub);
    let (answer, code) = doctor(home.path(), &[], &[("HF_ENDPOINT", &endpoint)]);
    let network = check(&answer, "network");
    assert_eq!((code, &network["state"], &network["facts"]["answers"]), (0, &"note".into(), &false.into()));
    assert!(network["todo"].as_str().unwrap().contains("--offline"));
}

#[test]
fn every_thing_is_looked_at_and_caches_are_measured() {
    let home = scratch();
    let blob = home.path().join(".cache/huggingface/hub/models--a--b/blobs/x");
    descant_files::create_dirs(blob.parent().unwrap()).unwrap();
    descant_files::write_atomic(&blob, &[7; 12_345]).unwrap();
    let (answer, _) = doctor(home.path(), &["--offline"], &[]);
    for name in ["descant", "cpu", "memory", "disk", "own cache", "driver", "hub cache", "token", "network"] {
        let check = check(&answer, name);
        assert!(["ok", "note"].contains(&check["state"].as_str().unwrap()), "{check}");
        assert!(
            check["state"] == "ok" || check["text"].as_str().is_some_and(|text| !text.is_empty()),
            "{check}"
        );
    }
    let cache = &check(&answer, "hub cache")["facts"];
    assert_eq!((&cache["repositories"], &cache["bytes"]), (&1.into(), &12_345.into()));
    assert!(check(&answer, "memory")["facts"]["available_bytes"].as_u64().unwrap() > 0);
    let (plain, lines) = {
        let ran =
            descant_with(home.path(), &["doctor", "--offline"], &[("HOME", home.path().to_str().unwrap())]);
        (ran.code, ran.out)
    };
    assert_eq!(plain, 0);
    assert!(lines.starts_with("descant     ok "), "{lines}");
}

#[test]
fn a_base_is_loaded_and_what_cannot_be_is_an_error() {
    let home = scratch();
    let tiny = root().join("fixtures/tiny-gpt-oss");
    let arguments = ["--offline", "--device", "cpu", "--model", tiny.to_str().unwrap()];
    let (answer, code) = doctor(home.path(), &arguments, &[]);
    let base = check(&answer, "base");
    assert_eq!((code, &base["state"]), (0, &"note".into()), "a small vocabulary has no opinion: {base}");
    assert_eq!(base["facts"]["vocabulary"], 1536);
    for wrong in ["no/such/folder", "openai/gpt-oss-20b", "gpt-oss-20b"] {
        let ran = descant(home.path(), &["doctor", "--offline", "--model", wrong]);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{wrong}: {}", ran.err);
        assert!(ran.err.contains("error: ") && ran.err.contains("hint: "), "{wrong}: {}", ran.err);
    }
}

#[test]
fn a_verbose_version_names_commit_and_features() {
    let dir = scratch();
    let short = descant(dir.path(), &["--version"]);
    assert_eq!((short.code, short.out.as_str()), (0, "descant 0.0.0\n"));
    for arguments in [["--version", "--verbose"], ["-v", "-V"], ["--verbose", "--version"]] {
        let ran = descant(dir.path(), &arguments);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        let lines: Vec<&str> = ran.out.lines().collect();
        assert_eq!(lines[0], "descant 0.0.0");
        let commit = lines[1].strip_prefix("commit    ").unwrap();
        let is_commit = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(is_commit || commit == "unknown", "{commit}");
        assert!(lines[2].starts_with("features  ") && lines[2].contains("languages"), "{}", lines[2]);
    }
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let dir = scratch();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ran = descant(dir.path(), &["completions", shell]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{shell}");
        for command in COMMANDS {
            assert!(ran.out.contains(command), "{shell}: {command}");
        }
        assert!(ran.out.contains("max-new-tokens"), "{shell}");
    }
    assert_eq!(descant(dir.path(), &["completions", "cmd"]).code, 2);
    let ran = descant(dir.path(), &["man", "--out", "man/man1"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let page = |name: &str| std::fs::read_to_string(dir.path().join("man/man1").join(name)).unwrap();
    for command in COMMANDS {
        let text = page(&format!("descant-{command}.1"));
        assert!(text.contains(".SH NAME") && text.contains(".SH OPTIONS"), "{command}");
    }
    assert!(page("descant.1").contains("descant\\-train"));
    assert!(page("descant-data-preview.1").contains("Trained tokens are marked with a bar"));
}
