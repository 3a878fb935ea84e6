//! From a hub on this machine to a report: `download`, `train --recipe`, and what they promise about sockets, tokens
//! and interrupted downloads.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use descant_testkit::loopback::{Fault, LoopbackHub};
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::{OWN, Ran, descant_with, root};

pub(crate) const MODEL: &str = "models/openai/gpt-oss-20b";
const ROWS: &str = "datasets/HuggingFaceH4/Multilingual-Thinking";
pub(crate) const CANARY: &str = "hf_CanaryThatMustNotBeSeen";

/// The tiny model and its data under the names that the tutorial uses, and an empty folder with an empty cache.
pub(crate) struct World {
    pub(crate) hub: LoopbackHub,
    pub(crate) dir: TempDir,
    commit: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let hub = LoopbackHub::start();
        let fixture = root().join("fixtures/tiny-gpt-oss");
        let commit = hub.publish_folder(MODEL, &fixture);
        let rows = std::fs::read(fixture.join("data/multilingual-thinking-tiny-efforts.parquet")).unwrap();
        hub.publish(ROWS, &[("README.md", b"rows".to_vec()), ("data/train-00000-of-00001.parquet", rows)]);
        Self { hub, dir: tempfile::tempdir().unwrap(), commit }
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("HF_HOME", self.dir.path().join("hf").display().to_string()),
            ("HF_ENDPOINT", self.hub.endpoint()),
        ]
    }

    pub(crate) fn run_with(&self, arguments: &[&str], more: &[(&'static str, &str)]) -> Ran {
        let own = self.variables();
        let mut all: Vec<(&str, &str)> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
        all.extend(more);
        descant_with(self.dir.path(), arguments, &all)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, &[])
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap()
    }
}

pub(crate) const SMALL: [&str; 12] = [
    "--set",
    "train.max_steps=3",
    "--set",
    "train.warmup_steps=1",
    "--set",
    "train.micro_batch=2",
    "--set",
    "train.accumulation=1",
    "--set",
    "evaluate.prompts=2",
    "--set",
    "evaluate.max_new_tokens=24",
];

#[test]
fn one_command_goes_from_an_empty_cache_to_a_report() {
    let world = World::new();
    let recipe = ["train", "--recipe", "multilingual-thinking", "--set", "run.folder=run"];
    let ran = world.run(&[&recipe[..], &SMALL].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    let pinned = format!("hf://openai/gpt-oss-20b@{}", world.commit);
    assert!(ran.err.contains(&format!("openai/gpt-oss-20b at {}", world.commit)), "{}", ran.err);
    assert!(ran.err.contains("wrote recipes/multilingual-thinking/held-out.jsonl"), "{}", ran.err);
    assert!(ran.out.contains("percent of replies"), "{}", ran.out);
    let config = world.read("run/config.toml");
    assert!(config.contains(&format!("path = \"{pinned}\"")), "{config}");
    assert!(config.contains("path = \"hf://datasets/HuggingFaceH4/Multilingual-Thinking@"), "{config}");
    assert!(
        !config.contains(world.dir.path().to_str().unwrap()),
        "a run names no folder of this machine: {config}"
    );
    let metrics = world.read("run/metrics.jsonl");
    assert_eq!(metrics.lines().count(), 3);
    assert!(world.read("run/report.html").contains("<polyline class=\"l1\""));
    let adapter: Value = serde_json::from_str(&world.read("run/adapter/adapter_config.json")).unwrap();
    assert_eq!(adapter["base_model_name_or_path"], "openai/gpt-oss-20b");
    assert_eq!(adapter["revision"], world.commit, "which of its commits");
    let evaluation: Value = serde_json::from_str(&world.read("run/evaluation.json")).unwrap();
    let suites =
        evaluation["suites"].as_array().unwrap().iter().map(|suite| suite["suite"].as_str().unwrap());
    assert_eq!(suites.collect::<Vec<_>>(), ["held-out", "tutorial"]);
    assert!(world.read("run/adapter/README.md").contains("base_model: \"openai/gpt-oss-20b\""));

    // The saved settings are the same run, also when the hub has moved on and the network is gone.
    let before = world.hub.connections();
    world.hub.publish(MODEL, &[("config.json", b"{}".to_vec())]);
    let again = ["train", "run/config.toml", "--set", "run.folder=again", "--offline", "-q"];
    let ran = world.run(&again);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(world.read("again/metrics.jsonl"), metrics);
    assert_eq!(world.hub.connections(), before);
    let reply = ["generate", "--model", &pinned, "--ids", "1523,30", "--max-new-tokens", "2", "--greedy"];
    assert_eq!(world.run(&reply).code, 0);
    assert_eq!(world.hub.connections(), before, "only download and train go to the network");
}

#[test]
fn a_file_that_is_not_there_is_found_before_anything_is_fetched() {
    let world = World::new();
    let ran = world.run(&["train", "--recipe", "multilingual-thinking", "--set", "data.path=mine.jsonl"]);
    assert_eq!((ran.code, world.hub.connections()), (2, 0), "{}", ran.err);
    assert!(ran.err.contains("error: mine.jsonl does not exist\nhint: nothing was fetched"), "{}", ran.err);
}

#[test]
fn download_prints_where_it_is_and_verifies() {
    let world = World::new();
    let ran = world.run(&["download"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let path = ran.out.trim_end().to_owned();
    assert!(
        path.ends_with(&format!("hf/hub/models--openai--gpt-oss-20b/snapshots/{}", world.commit)),
        "{path}"
    );
    assert!(Path::new(&path).join("model.safetensors").is_file());
    assert!(ran.err.contains("7 of 7 files fetched, each with its published hash"), "{}", ran.err);

    let ran = world.run(&["download", "--recipe", "multilingual-thinking", "--json"]);
    let answer: Value = serde_json::from_str(&ran.out).unwrap();
    let commits: Vec<&str> = ["0", "1"]
        .map(|at| answer["repositories"][at.parse::<usize>().unwrap()]["commit"].as_str().unwrap())
        .to_vec();
    assert_eq!(commits[0], world.commit);
    assert!(
        answer["repositories"][1]["path"].as_str().unwrap().ends_with("data/train-00000-of-00001.parquet")
    );

    // What is in the cache can be looked at by its name.
    let rows = "hf://datasets/HuggingFaceH4/Multilingual-Thinking";
    let asked = world.hub.connections();
    let seen = world.run(&["data", "preview", rows, "--model", "hf://openai/gpt-oss-20b", "--rows", "0"]);
    assert_eq!(seen.code, 0, "{}", seen.err);
    assert!(seen.out.contains("reasoning    examples"), "{}", seen.out);
    assert_eq!(world.hub.connections(), asked);

    // A byte flips on the disk.
    let weights = std::fs::canonicalize(Path::new(&path).join("model.safetensors")).unwrap();
    let mut bytes = std::fs::read(&weights).unwrap();
    bytes[1_000_000] ^= 1;
    std::io::Write::write_all(&mut std::fs::File::create(&weights).unwrap(), &bytes).unwrap();
    let looked = world.run(&["download", "--verify", "--offline"]);
    assert_eq!(looked.code, 1, "{}", looked.err);
    assert!(looked.err.contains("warning: model.safetensors: its SHA-256 is "), "{}", looked.err);
    let mended = world.run(&["download", "--verify"]);
    assert_eq!(mended.code, 0, "{}", mended.err);
    assert!(
        mended.err.contains("model.safetensors in the cache is damaged, fetching it again"),
        "{}",
        mended.err
    );
    assert!(mended.err.contains("7 files have their published hash"), "{}", mended.err);
}

#[test]
fn the_shards_of_a_data_set_are_one_data_set() {
    let world = World::new();
    let rows =
        std::fs::read_to_string(root().join("fixtures/harmony/data/multilingual-thinking-24.jsonl")).unwrap();
    let lines: Vec<&str> = rows.lines().collect();
    let shard = |n: usize| lines[n * 8..n * 8 + 8].join("\n").into_bytes();
    let named: Vec<_> = (0..3).map(|n| (format!("data/train-0000{n}-of-00003.jsonl"), shard(n))).collect();
    let mut files: Vec<(&str, Vec<u8>)> = named.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
    files.push(("data/test-00000-of-00001.jsonl", b"{".to_vec()));
    world.hub.publish("datasets/some/rows", &files);
    let fetched = world.run(&["download", "datasets/some/rows"]);
    assert_eq!(fetched.code, 0, "{}", fetched.err);
    assert!(fetched.err.contains("3 of 3 files fetched"), "{}", fetched.err);
    let whole = root().join("fixtures/harmony/data/multilingual-thinking-24.jsonl");
    let model = root().join("fixtures/tiny-gpt-oss");
    let preview = |file: &str| {
        let ran = world.run(&["data", "preview", file, "--model", model.to_str().unwrap(), "--rows", "24"]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out
    };
    assert_eq!(preview("hf://datasets/some/rows"), preview(whole.to_str().unwrap()));
    let again = world.run(&["download", "datasets/some/rows"]);
    assert!(again.err.contains("all 3 files were there"), "{}", again.err);
}

#[test]
fn a_directory_is_looked_at_and_not_fetched() {
    let world = World::new();
    let fixture = root().join("fixtures/tiny-gpt-oss");
    let ran = world.run(&["download", fixture.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("7 look whole and have no published hash here"), "{}", ran.err);
    let empty = world.dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let ran = world.run(&["download", "./empty"]);
    assert!(ran.code == 2 && ran.err.contains("it has no config.json"), "{}", ran.err);
    assert_eq!(world.hub.connections(), 0);
}

#[test]
fn offline_opens_no_socket_and_says_what_is_missing() {
    let world = World::new();
    let recipe = ["train", "--recipe", "multilingual-thinking"];
    for (arguments, variable) in [
        (vec!["download", "--offline"], "0"),
        (vec!["download"], "1"),
        (vec!["train", "--recipe", "multilingual-thinking", "--offline"], "0"),
        (recipe.to_vec(), "1"),
        (vec!["generate", "--model", "hf://openai/gpt-oss-20b", "Hi"], "0"),
    ] {
        let ran = world.run_with(&arguments, &[("HF_HUB_OFFLINE", variable)]);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}");
        assert!(
            ran.err.contains("hf://openai/gpt-oss-20b is not in the cache"),
            "{arguments:?}: {}",
            ran.err
        );
        assert!(
            ran.err.contains("hint: descant download hf://openai/gpt-oss-20b"),
            "{arguments:?}: {}",
            ran.err
        );
    }
    assert_eq!(world.hub.connections(), 0);
}

#[test]
fn no_command_shows_the_token_at_any_level() {
    let world = World::new();
    world.hub.require(MODEL, CANARY);
    let shard = world.hub.target_of(MODEL, "model.safetensors");
    let loud = [("HF_TOKEN", CANARY), ("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full")];
    let refused = world.run(&["download"]);
    assert!(refused.code == 2 && refused.err.contains("set HF_TOKEN"), "{}", refused.err);
    let elsewhere = LoopbackHub::start();
    let mut all = String::new();
    let mut run = |arguments: &[&str], more: &[(&'static str, &str)]| {
        let ran = world.run_with(arguments, &[&loud[..], more].concat());
        all += &ran.out;
        all += &ran.err;
        ran.code
    };
    world.hub.fail(&shard, 1, Fault::Cut(1000));
    assert_eq!(run(&["download", "-vv", "--json"], &[]), 0);
    assert_eq!(run(&["download", "-vv", "--verify"], &[]), 0);
    assert_eq!(run(&["download", "-vv", "openai/nothing"], &[]), 2);
    world.hub.fail("/api/", 1, Fault::Redirect(format!("{}/x", elsewhere.endpoint())));
    assert_eq!(run(&["download", "-vv"], &[]), 2);
    world.hub.fail("/api/", 1, Fault::LoginPage);
    assert_eq!(run(&["download", "-vv"], &[]), 2);
    assert_eq!(run(&["download", "-vv"], &[("HF_TOKEN", "hf_CanaryThatMustNotBeSeen\u{1}")]), 2);
    assert_eq!(
        run(&["download", "-vv"], &[("HF_ENDPOINT", "http://u:hf_CanaryThatMustNotBeSeen@127.0.0.1:1")]),
        2
    );
    let recipe = ["train", "-vv", "--recipe", "multilingual-thinking", "--set", "run.folder=run"];
    assert_eq!(run(&[&recipe[..], &SMALL].concat(), &[]), 0);
    assert_eq!(run(&["train", "-vv", "--dry-run", "--recipe", "multilingual-thinking"], &[]), 0);
    assert_eq!(run(&["generate", "-vv", "--model", "hf://openai/nothing", "x"], &[]), 2);
    assert!(all.len() > 1000 && all.contains("model.safetensors"), "the commands talked");
    assert!(!all.contains(CANARY), "{all}");
    for (name, bytes) in files(world.dir.path()) {
        assert!(!String::from_utf8_lossy(&bytes).contains(CANARY), "{name}");
    }
    let home = world.hub.seen();
    assert!(home.iter().any(|seen| seen.head.contains(CANARY)), "it was sent to the hub");
    for seen in home.iter().filter(|seen| seen.at_store).chain(&elsewhere.seen()) {
        assert!(!seen.head.contains(CANARY), "{seen:?}");
    }
    assert!(!elsewhere.seen().is_empty());
}

#[test]
fn a_download_that_is_killed_goes_on_by_range() {
    let world = World::new();
    let shard = world.hub.target_of(MODEL, "model.safetensors");
    world.hub.fail(&shard, 1, Fault::Stall(500_000, Duration::from_secs(15)));
    let mut command = Command::new(env!("CARGO_BIN_EXE_descant"));
    for name in OWN {
        command.env_remove(name);
    }
    command.arg("download").current_dir(world.dir.path()).envs(world.variables());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let part = world.dir.path().join("hf/hub/models--openai--gpt-oss-20b/blobs");
    let part = part.join(format!("{shard}.descant.incomplete"));
    let begun = Instant::now();
    while std::fs::metadata(&part).map_or(0, |metadata| metadata.len()) < 500_000 {
        assert!(begun.elapsed() < Duration::from_secs(12), "nothing came");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    world.hub.forget();
    let ran = world.run(&["download"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let asked = world.hub.seen().into_iter().filter(|seen| seen.at_store && seen.target.contains(&shard));
    let ranges: Vec<_> = asked.map(|seen| seen.range).collect();
    assert_eq!(ranges, [Some("bytes=500000-".to_owned())]);
    assert_eq!(world.run(&["download", "--verify", "--offline"]).code, 0);
}

#[test]
fn a_recipe_is_written_with_the_files_that_it_names_and_changed_ones_are_kept() {
    let world = World::new();
    let ran = world.run(&["init", "--recipe", "multilingual-thinking"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(
        ran.err,
        "wrote recipes/multilingual-thinking/held-out.jsonl\nwrote run.toml\nhint: descant train run.toml\n"
    );
    let shipped = std::fs::read_to_string(root().join("recipes/multilingual-thinking/run.toml")).unwrap();
    assert_eq!(world.read("run.toml"), shipped);
    let held_out = world.dir.path().join("recipes/multilingual-thinking/held-out.jsonl");
    std::io::Write::write_all(&mut std::fs::File::create(&held_out).unwrap(), b"mine").unwrap();
    assert_eq!(world.run(&["init", "--recipe", "multilingual-thinking", "--out", "other.toml"]).code, 0);
    assert_eq!(world.read("recipes/multilingual-thinking/held-out.jsonl"), "mine");
    let dry = world.run(&["train", "--dry-run", "run.toml"]);
    assert!(dry.code == 0 && dry.out.contains("path = \"hf://openai/gpt-oss-20b\""), "{}", dry.err);
    let unknown = world.run(&["init", "--recipe", "nothing", "--out", "x.toml"]);
    assert_eq!(
        (unknown.code, unknown.err.as_str()),
        (2, "error: no recipe `nothing`\nhint: there is: tiny, multilingual-thinking\n")
    );
    assert_eq!(world.hub.connections(), 0);
}

/// Every regular file below a folder.
pub(crate) fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_file() {
                found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
            }
        }
    }
    found
}
