//! Data in large: the cache of prepared data, several sources, validation, from the command line.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::binary::{Ran, descant, descant_with, root};

fn put(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), bytes.as_ref()).unwrap();
}

/// A data set of more than 4 MiB, which is kept; `salt` makes it another.
fn large(folder: &Path, salt: &str) -> PathBuf {
    let path = folder.join(format!("large{salt}.jsonl"));
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    for row in 0..4200 {
        let words = format!("{salt} {row} plus {} ", row % 97).repeat(90);
        writeln!(file, "{{\"prompt\": \"{words}\", \"completion\": \"{}\"}}", row * 2).unwrap();
    }
    file.into_inner().unwrap();
    assert!(path.metadata().unwrap().len() > 4 << 20);
    path
}

fn plan(data: &Path, cache: &Path, more: &[&str]) -> Ran {
    let data = format!("data.path={}", data.display());
    let arguments =
        [&["plan", "--json", "--set", &data, "--set", "evaluate.efforts=[\"low\"]"], more].concat();
    descant_with(root(), &arguments, &[("XDG_CACHE_HOME", cache.to_str().unwrap())])
}

/// The files of prepared examples.
fn kept(cache: &Path) -> Vec<PathBuf> {
    let Ok(entries) = cache.join("descant/data").read_dir() else { return Vec::new() };
    let files = entries.map(|entry| entry.unwrap().path().join("examples"));
    let mut files: Vec<PathBuf> = files.filter(|file| file.exists()).collect();
    files.sort();
    files
}

fn answer(ran: &Ran) -> Value {
    assert!([0, 1].contains(&ran.code), "{}", ran.err);
    let mut answer: Value = serde_json::from_str(&ran.out).unwrap();
    // Bytes that happen to be free, peaks above what the process happens to have, and a time that was measured.
    answer["memory_bytes"] = Value::Null;
    answer["peak_bytes"] = Value::Null;
    answer["disk_bytes"] = Value::Null;
    answer["seconds_at_least"] = Value::Null;
    answer
}

#[test]
fn prepared_data_is_found_again_and_made_again_where_it_is_damaged_foreign_or_old() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let data = large(dir.path(), "a");
    let first = plan(&data, &cache, &[]);
    let (files, expected) = (kept(&cache), answer(&first));
    assert_eq!(files.len(), 1, "{}", first.err);
    let whole = std::fs::read(&files[0]).unwrap();

    let second = plan(&data, &cache, &["-v"]);
    assert_eq!(answer(&second), expected);
    assert!(second.err.contains("prepared data of"), "{}", second.err);

    let middle = whole.len() / 3;
    let flipped = [&whole[..middle], &[whole[middle] ^ 1], &whole[middle + 1..]].concat();
    for (damage, bytes) in [
        ("a flipped bit", flipped.as_slice()),
        ("cut", &whole[..middle]),
        ("foreign", b"PAR1"),
        ("empty", b""),
    ] {
        put(&files[0], bytes);
        let again = plan(&data, &cache, &[]);
        assert_eq!(answer(&again), expected, "{damage}");
        assert!(again.err.contains("made again"), "{damage}: {}", again.err);
        assert!(std::fs::read(&files[0]).unwrap() == whole, "{damage}: the same bytes are made again");
    }

    // Other settings, or another content under the same name, are other data.
    answer(&plan(&data, &cache, &["--set", "data.mask=final_only"]));
    assert_eq!(kept(&cache).len(), 2);
    let text = std::fs::read_to_string(&data).unwrap();
    put(&data, text.replace("0 plus 0 ", "0 plus 1 "));
    answer(&plan(&data, &cache, &[]));
    assert_eq!(kept(&cache).len(), 3);
}

#[test]
fn the_cache_is_bounded_can_be_refused_and_is_never_needed() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let (a, b) = (large(dir.path(), "a"), large(dir.path(), "b"));
    answer(&plan(&a, &cache, &["--set", "run.cache=none"]));
    assert_eq!(kept(&cache).len(), 0);
    answer(&plan(&a, &cache, &[]));
    let first = kept(&cache);
    answer(&plan(&b, &cache, &["--set", "run.cache=5MB"]));
    let left = kept(&cache);
    assert!(left.len() == 1 && left != first, "what was used longest ago went: {left:?}");
    // A folder that cannot be written costs the cache and nothing else.
    let file = dir.path().join("file");
    put(&file, b"");
    let ran = plan(&a, &file, &[]);
    answer(&ran);
    assert!(ran.err.contains("prepared data is not cached"), "{}", ran.err);
    let wrong = plan(&a, &cache, &["--set", "run.cache=much"]);
    assert!(wrong.code == 2 && wrong.err.contains("run.cache is `much`"), "{}", wrong.err);
}

#[test]
fn a_full_disk_while_the_cache_is_written_costs_the_cache_and_not_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let data = large(dir.path(), "a");
    let expected = answer(&plan(&data, &dir.path().join("other"), &[]));
    let mut refused = 0;
    for operation in 0..8 {
        let cache = dir.path().join(format!("cache-{operation}"));
        let data = format!("data.path={}", data.display());
        let arguments = ["plan", "--json", "--set", &data, "--set", "evaluate.efforts=[\"low\"]"];
        let (fault, place) = (format!("full:{operation}"), cache.to_str().unwrap());
        let ran = descant_with(root(), &arguments, &[("XDG_CACHE_HOME", place), ("DESCANT_FAULT", &fault)]);
        assert_eq!(answer(&ran), expected, "operation {operation}");
        if ran.err.contains("prepared data is not cached") {
            refused += 1;
            assert!(kept(&cache).is_empty());
        }
        let names = std::fs::read_dir(cache.join("descant/data")).unwrap();
        let left = names.filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_str().unwrap().contains(".tmp-")
        });
        assert_eq!(left.count(), 0, "operation {operation}: nothing half written is left");
    }
    assert!(refused >= 3, "making the file, writing, bringing it to the disk: {refused}");
}

/// Names that a process which ended too early leaves.
fn left(cache: &Path) -> Vec<String> {
    let Ok(entries) = cache.join("descant/data").read_dir() else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".tmp-")).collect()
}

#[test]
fn the_next_start_sweeps_what_a_killed_process_left_and_nothing_of_one_at_work() {
    let dir = tempfile::tempdir().unwrap();
    let data = large(dir.path(), "a");
    let expected = answer(&plan(&data, &dir.path().join("other"), &[]));
    let mut killed = 0;
    for operation in 6..12 {
        let cache = dir.path().join(format!("cache-{operation}"));
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_descant"));
        command.args(["plan", "--set", &format!("data.path={}", data.display())]).current_dir(root());
        command.env("XDG_CACHE_HOME", &cache).env("DESCANT_FAULT", format!("kill:{operation}"));
        command.output().unwrap();
        killed += left(&cache).len();
        assert_eq!(answer(&plan(&data, &cache, &[])), expected, "{operation}");
        assert_eq!(left(&cache), Vec::<String>::new(), "{operation}");
        assert_eq!(kept(&cache).len(), 1);
    }
    assert!(killed >= 3, "half-written folders: {killed}");

    let cache = dir.path().join("cache-6");
    let folder = cache.join("descant/data/key.tmp-1-0");
    std::fs::create_dir(&folder).unwrap();
    let writer = std::fs::File::open(&folder).unwrap();
    writer.lock().unwrap();
    answer(&plan(&data, &cache, &[]));
    assert_eq!(left(&cache), ["key.tmp-1-0"], "its writer is at work");
    drop(writer);
    answer(&plan(&data, &cache, &[]));
    assert_eq!(left(&cache), Vec::<String>::new());
}

#[test]
fn without_a_cache_examples_lie_in_a_file_that_nobody_sees_and_else_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let data = large(dir.path(), "a");
    let expected = answer(&plan(&data, &dir.path().join("cache"), &[]));
    let passing = dir.path().join("passing");
    std::fs::create_dir(&passing).unwrap();
    let path = format!("data.path={}", data.display());
    let of = |passing: &Path| {
        let more = ["plan", "--json", "-v", "--set", &path, "--set", "evaluate.efforts=[\"low\"]"];
        let arguments = [&more[..], &["--set", "run.cache=none"]].concat();
        descant_with(root(), &arguments, &[("TMPDIR", passing.to_str().unwrap())])
    };
    let ran = of(&passing);
    assert_eq!(answer(&ran), expected);
    let said = format!("prepared data in {}, for this run alone", passing.display());
    assert!(ran.err.contains(&said), "{}", ran.err);
    assert_eq!(passing.read_dir().unwrap().count(), 0);
    let ran = of(&dir.path().join("missing"));
    assert_eq!(answer(&ran), expected);
    assert!(ran.err.contains("prepared data stays in memory"), "{}", ran.err);
}

/// Few steps, nothing asked, a look after every second step.
const SHORT: [&str; 14] = [
    "--set",
    "train.max_steps=7",
    "--set",
    "train.warmup_steps=1",
    "--set",
    "train.micro_batch=2",
    "--set",
    "data.held_out=",
    "--set",
    "validate.every=2",
    "--set",
    "validate.examples=6",
    "--set",
    "run.save_every=1",
];

fn train(folder: &Path, more: &[&str]) -> Ran {
    let place = format!("run.folder={}", folder.display());
    descant(root(), &[&["train", "--set", &place], &SHORT[..], more].concat())
}

/// Trains in a process that is killed at one of its operations on files; whether it ended before.
fn ended(folder: &Path, more: &[&str], operation: u32) -> bool {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_descant"));
    let place = format!("run.folder={}", folder.display());
    command.args(["train", "--set", &place]).args(SHORT).args(more).current_dir(root());
    command.env("DESCANT_FAULT", format!("kill:{operation}"));
    command.output().unwrap().status.success()
}

fn steps(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_validation_loss_is_kept_by_channel_through_resuming_and_the_best_adapter_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, stopped) = (dir.path().join("whole"), dir.path().join("stopped"));
    let share = ["--set", "data.validation=0.02"];
    let ran = train(&whole, &share);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let looks: Vec<(u64, f64)> = steps(&whole)
        .iter()
        .filter_map(|step| Some((step["step"].as_u64()?, step["validation"]["loss"].as_f64()?)))
        .collect();
    assert_eq!(looks.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [2, 4, 6, 7]);
    let last = &steps(&whole)[6]["validation"];
    let channels = last["channels"].as_object().unwrap();
    assert_eq!(channels.keys().collect::<Vec<_>>(), ["analysis", "final"]);
    let counted: u64 = channels.values().map(|channel| channel["tokens"].as_u64().unwrap()).sum();
    assert_eq!(last["tokens"], counted);
    let (best, least) = looks.iter().copied().reduce(|a, b| if b.1 < a.1 { b } else { a }).unwrap();
    let names: Vec<String> = std::fs::read_dir(&whole)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("best-"))
        .collect();
    assert_eq!(names, [format!("best-step-{best:06}")]);
    let summary: Value = serde_json::from_slice(&std::fs::read(whole.join("summary.json")).unwrap()).unwrap();
    assert_eq!(
        (
            summary["best"]["step"].as_u64(),
            summary["best"]["validation_loss"].as_f64().map(|loss| loss as f32)
        ),
        (Some(best), Some(least as f32))
    );
    for word in ["validation  ", "best  "] {
        assert!(ran.err.lines().any(|line| line.starts_with(word)), "{word}: {}", ran.err);
    }
    assert!(
        std::fs::read_to_string(whole.join("report.html"))
            .unwrap()
            .contains("the dashed line examples that are not trained on")
    );

    // Killed again and again, and every time the same command: the same bytes.
    let mut kills = 0;
    for operation in [70, 120, 150, 170, 60] {
        kills += u32::from(!ended(&stopped, &share, operation));
    }
    assert!(kills >= 2, "{kills}");
    let ran = train(&stopped, &share);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for file in [
        "metrics.jsonl",
        "adapter/adapter_model.safetensors",
        &format!("{}/adapter_model.safetensors", names[0]),
    ] {
        assert!(
            std::fs::read(whole.join(file)).unwrap() == std::fs::read(stopped.join(file)).unwrap(),
            "{file}"
        );
    }

    // A look changes nothing in the training; what is validated on is not trained on.
    let data: Value = serde_json::from_slice(&std::fs::read(whole.join("data.json")).unwrap()).unwrap();
    let (made, trained) = (data["account"]["views"].as_u64().unwrap(), data["examples"].as_u64().unwrap());
    let duplicates = data["account"]["duplicates"].as_u64().unwrap();
    assert_eq!(trained + data["validation"]["examples"].as_u64().unwrap(), made - duplicates);
    assert_eq!(data["validation"]["watched"], 6);
}

#[test]
fn a_run_ends_when_the_validation_loss_falls_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    // The first step's rate is 0 and the others are all but 0, so no look is better than the first by more than noise.
    let more = [
        "--set",
        "data.validation=0.02",
        "--set",
        "validate.patience=1",
        "--set",
        "validate.every=1",
        "--set",
        "train.learning_rate=1e-30",
        "--set",
        "train.max_steps=50",
    ];
    let ran = train(&folder, &more);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(steps(&folder).len(), 2, "{}", ran.err);
    assert!(ran.err.contains("the run ends at step 2"), "{}", ran.err);
    assert!(folder.join("best-step-000001/adapter_model.safetensors").exists());
    let again = train(&folder, &more);
    assert!(again.code == 0 && again.err.contains("is done"), "{}", again.err);
}

#[test]
fn several_sources_are_trained_in_their_shares_and_wrong_ones_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, rows: usize| {
        let path = dir.path().join(name);
        let row = |row: usize| format!("{{\"prompt\": \"{name} {row}\", \"completion\": \"{row}\"}}\n");
        put(&path, (0..rows).map(row).collect::<String>());
        path.display().to_string()
    };
    let (a, b) = (file("a.jsonl", 10), file("b.jsonl", 30));
    let sources = |shares: [&str; 2]| {
        format!("data.sources=[{{path=\"{a}\"{}}}, {{path=\"{b}\"{}}}]", shares[0], shares[1])
    };
    let run =
        |name: &str, sources: &str| train(&dir.path().join(name), &["--set", "data.path=", "--set", sources]);
    let ran = run("shared", &sources([", share=0.5", ", share=0.5"]));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("a.jsonl: 10 examples, 30 in an epoch, 50.0 %"), "{}", ran.err);
    let data: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("shared/data.json")).unwrap()).unwrap();
    assert_eq!((&data["in_epoch"], &data["sources"][1]["in_epoch"]), (&60.into(), &30.into()));
    let ran = run("plain", &sources(["", ""]));
    assert!(ran.err.contains("b.jsonl: 30 examples, 30 in an epoch, 75.0 %"), "{}", ran.err);
    let wrong = run("wrong", &sources([", share=0.5", ""]));
    assert!(wrong.code == 2 && wrong.err.contains("give all one, or none"), "{}", wrong.err);
    let both = descant(root(), &["plan", "--set", &sources(["", ""])]);
    assert!(both.code == 2 && both.err.contains("data.path and data.sources are both set"), "{}", both.err);
}

#[test]
fn a_preview_needs_no_repository_and_no_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    put(&path, "{\"prompt\": \"2 + 2?\", \"completion\": \"4\"}\n");
    let ran = descant(dir.path(), &["data", "preview", "rows.jsonl"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.out.contains("2 + 2?") && ran.err.contains("built-in gpt-oss template"),
        "{}{}",
        ran.out,
        ran.err
    );
}

#[test]
fn a_warm_up_that_nobody_wrote_gives_way_to_few_steps_and_one_that_was_written_does_not() {
    let dry = |sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        descant(root(), &[&["train", "--dry-run"], &sets[..]].concat())
    };
    let short = dry(&["train.max_steps=4"]);
    assert!(short.code == 0 && short.out.contains("\nwarmup_steps = 1\n"), "{}{}", short.out, short.err);
    let written = dry(&["train.max_steps=4", "train.warmup_steps=5"]);
    assert!(written.code == 2 && written.err.contains("train.warmup_steps is 5"), "{}", written.err);
    assert!(dry(&["train.max_steps=5"]).out.contains("\nwarmup_steps = 5\n"), "five steps are enough");
}

#[test]
fn what_stands_in_two_places_is_counted_and_validation_stays_apart() {
    let dir = tempfile::tempdir().unwrap();
    let row = |at: usize| format!("{{\"prompt\": \"{at}?\", \"completion\": \"{at}\"}}\n");
    let other = |at: usize| format!("{{\"prompt\": \"{at}?\", \"completion\": \"no\"}}\n");
    let file = |name: &str, rows: Vec<String>| {
        let path = dir.path().join(name);
        put(&path, rows.concat());
        path.display().to_string()
    };
    let a = file("a.jsonl", (0..10).map(row).collect());
    let b = file("b.jsonl", (7..20).map(row).collect());
    // Two rows that are trained on, one that asks the same and answers otherwise, one that is new.
    let watched = file("watched.jsonl", vec![row(3), row(12), other(4), row(99)]);
    let asked = file("asked.jsonl", vec![row(5), row(50)]);
    let sources = format!("data.sources=[{{path=\"{a}\"}}, {{path=\"{b}\"}}]");
    let (validation, held_out) = (format!("data.validation={watched}"), format!("data.held_out={asked}"));
    let sets =
        ["--set", "data.path=", "--set", &sources, "--set", &validation, "--set", "train.warmup_steps=1"];
    let warnings = [
        format!("3 examples of {b} are also in an earlier data set"),
        "2 validation examples are trained on, and left out of the validation".to_owned(),
        "1 validation examples begin with a prompt that is trained on".to_owned(),
    ];
    let plan = descant(root(), &[&["plan", "--json"], &sets[..], &["--set", &held_out]].concat());
    let run = dir.path().join("run");
    let ran = train(&run, &sets);
    for (ran, warnings) in [(&plan, &warnings), (&ran, &warnings)] {
        for warning in warnings {
            assert!(ran.err.contains(warning), "{warning}: {}", ran.err);
        }
    }
    assert!(plan.err.contains("1 held-out prompts are also trained on"), "{}", plan.err);
    let data: Value = serde_json::from_slice(&std::fs::read(run.join("data.json")).unwrap()).unwrap();
    assert_eq!(
        (&data["validation"]["examples"], &data["validation"]["repeated"], &data["validation"]["shared"]),
        (&2.into(), &2.into(), &1.into())
    );
    assert_eq!(data["sources"][1]["repeated"], 3);
    let same =
        descant(root(), &[&["plan"], &sets[..4], &["--set", &format!("data.validation={a}")]].concat());
    assert!(same.code == 2 && same.err.contains("is trained on"), "{}", same.err);

    // A share is split by prompt whatever the mask: a second answer is on the side of the first.
    let twice = file("twice.jsonl", (0..40).flat_map(|at| [row(at), other(at)]).collect());
    let path = format!("data.path={twice}");
    for mask in ["assistant", "final_only", "everything"] {
        let folder = dir.path().join(mask);
        let mask = format!("data.mask={mask}");
        let sets = ["--set", &path, "--set", &mask, "--set", "data.validation=0.1"];
        let ran = train(&folder, &[&sets[..], &["--dry-run"]].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        let plan = descant(root(), &[&["plan", "--json"], &sets[..]].concat());
        let plan: Value = serde_json::from_str(&plan.out).unwrap();
        assert_eq!(plan["examples"], 72, "{mask}");
    }
}

#[test]
fn files_of_a_folder_that_are_not_read_are_named_by_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let row = |at: usize| format!("{{\"prompt\": \"{at}?\", \"completion\": \"{at}\"}}\n");
    let rows: String = (0..8).map(row).collect();
    for (name, text) in [("rows.jsonl", rows.as_str()), ("more.csv", "a,b\n"), ("old.json", "[]")] {
        put(dir.path().join(name), text);
    }
    let said = "2 files of another kind were not read: more.csv, old.json";
    let place = dir.path().to_str().unwrap();
    let preview = descant(root(), &["data", "preview", place, "--model", "fixtures/tiny-gpt-oss"]);
    assert!(preview.code == 0 && preview.out.contains(said), "{}{}", preview.out, preview.err);
    let path = format!("data.path={place}");
    let plan = descant(root(), &["plan", "--set", &path]);
    assert!(plan.err.contains(said), "{}", plan.err);
    let ran = train(&dir.path().join("run"), &["--set", &path]);
    assert!(ran.code == 0 && ran.err.contains(said), "{}", ran.err);
}
