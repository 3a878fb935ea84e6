//! A folder of files with one defect each, through the binary: each ends with status 2 and words of its own, which
//! name the file and the key, tensor, line or row; nothing panics and nothing is left behind.

mod adapters;
mod models;
mod settings;
mod texts;

use std::collections::BTreeMap;
use std::path::Path;

use descant_testkit::nf4::Model;
use descant_testkit::shard::file_of;

use crate::binary::{Ran, descant, root};

/// What a case is given to.
#[derive(Clone, Copy)]
enum Command {
    /// `descant train`, with a settings file, on the model and the rows.
    Train,
    /// `descant generate` from ids, with the adapter.
    Generate,
    /// `descant score` of a file of sequences.
    Score,
    /// The same with a model that bitsandbytes packed.
    ScorePacked,
}

/// What is done to a file.
enum Damage {
    /// It has these bytes in place of its own.
    Bytes(Vec<u8>),
    /// It is not there.
    Gone,
    /// It is a folder.
    Folder,
    /// It is a pipe that nobody writes to.
    #[cfg(unix)]
    Pipe,
    /// It is a link.
    #[cfg(unix)]
    Link(&'static str),
}

/// A file, its damage, and words that the error must have.
struct Case {
    command: Command,
    file: &'static str,
    damage: Damage,
    words: &'static str,
    /// Where the error must say that it is; the file's name unless something else names the place better.
    place: Option<&'static str>,
}

impl Case {
    fn at(self, place: &'static str) -> Self {
        Self { place: Some(place), ..self }
    }
}

fn case(command: Command, file: &'static str, bytes: impl Into<Vec<u8>>, words: &'static str) -> Case {
    odd(command, file, Damage::Bytes(bytes.into()), words)
}

fn odd(command: Command, file: &'static str, damage: Damage, words: &'static str) -> Case {
    // A setting is named by its key.
    let place = (file == "run.toml").then_some(words);
    Case { command, file, damage, words, place }
}

/// Few steps of the tiny model.
const SETTINGS: &str = "\
[train]
max_steps = 1
warmup_steps = 0
micro_batch = 1
";

/// Rows that are good.
const ROWS: &str = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
"#;

fn run(dir: &Path, command: Command) -> Ran {
    let arguments: &[&str] = match command {
        Command::Train => &[
            "train",
            "-q",
            "run.toml",
            "--set",
            "model.path=model",
            "--set",
            "data.path=data.jsonl",
            "--set",
            "run.folder=run",
        ],
        Command::Generate => &[
            "generate",
            "-q",
            "--model=model",
            "--adapter=adapter",
            "--ids=1,2",
            "--max-new-tokens=1",
            "--greedy",
        ],
        Command::Score => &["score", "-q", "--model=model", "--input=ids.jsonl"],
        Command::ScorePacked => &["score", "-q", "--model=packed", "--input=ids.jsonl"],
    };
    descant(dir, arguments)
}

/// Writes without asking for the disk: these files live for a moment.
fn put(path: &Path, bytes: &[u8]) {
    std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), bytes).unwrap();
}

/// Does a case's damage.
fn damage(path: &Path, damage: &Damage) {
    if path.exists() {
        std::fs::remove_file(path).unwrap();
    }
    match damage {
        Damage::Bytes(bytes) => put(path, bytes),
        Damage::Gone => {}
        Damage::Folder => std::fs::create_dir(path).unwrap(),
        #[cfg(unix)]
        Damage::Pipe => {
            let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
            assert!(made.success());
        }
        #[cfg(unix)]
        Damage::Link(target) => std::os::unix::fs::symlink(target, path).unwrap(),
    }
}

/// Puts the good file back, or nothing where there was none.
fn mend(path: &Path, good: Option<Vec<u8>>) {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir(path).unwrap(),
        Ok(_) => std::fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
    if let Some(good) = good {
        put(path, &good);
    }
}

#[test]
fn each_defect_has_its_own_error_that_names_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let fixture = root().join("fixtures/tiny-gpt-oss");
    std::fs::create_dir(dir.join("model")).unwrap();
    for entry in std::fs::read_dir(&fixture).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, dir.join("model").join(path.file_name().unwrap())).unwrap();
        }
    }
    let packed = Model::tiny();
    std::fs::create_dir(dir.join("packed")).unwrap();
    put(&dir.join("packed/config.json"), packed.config.to_string().as_bytes());
    put(&dir.join("packed/model.safetensors"), &file_of(&packed.packed));
    put(&dir.join("run.toml"), SETTINGS.as_bytes());
    put(&dir.join("data.jsonl"), ROWS.as_bytes());
    put(&dir.join("ids.jsonl"), b"{\"ids\": [1, 2, 3]}\n");
    // The control: undamaged, everything is taken. What is trained here is the adapter of the cases.
    let trained = run(dir, Command::Train);
    assert_eq!(trained.code, 0, "{}", trained.err);
    std::fs::rename(dir.join("run/adapter"), dir.join("adapter")).unwrap();
    std::fs::remove_dir_all(dir.join("run")).unwrap();
    for command in [Command::Generate, Command::Score, Command::ScorePacked] {
        let ran = run(dir, command);
        assert_eq!(ran.code, 0, "{}", ran.err);
    }

    let read = |file: &str| std::fs::read(dir.join(file)).unwrap();
    let cases = [
        models::configs(&read("model/config.json")),
        models::shards(&read("model/model.safetensors")),
        models::indices(),
        models::packed(&packed.packed),
        texts::tokenizers(&read("model/tokenizer.json")),
        texts::templates(),
        texts::rows(),
        texts::sequences(),
        adapters::configs(&read("adapter/adapter_config.json")),
        adapters::tensors(&read("adapter/adapter_model.safetensors")),
        settings::all(),
    ];
    let cases: Vec<Case> = cases.into_iter().flatten().collect();
    assert!(cases.len() >= 60, "{}", cases.len());
    println!("{} files with one defect each", cases.len());
    let (mut said, mut wrong) = (BTreeMap::new(), Vec::new());
    for (n, Case { command, file, damage: defect, words, place }) in cases.iter().enumerate() {
        let path = dir.join(file);
        let good = std::fs::read(&path).ok();
        damage(&path, defect);
        let ran = run(dir, *command);
        let name = path.file_name().unwrap().to_str().unwrap();
        let placed = ran.err.contains(place.unwrap_or(name));
        if ran.code != 2 || !ran.err.contains(words) || ran.err.contains("panicked") || !placed {
            wrong.push(format!("case {n}, {file}, expected `{words}`: {}\n{}", ran.code, ran.err));
        }
        if let Some(other) = said.insert(ran.err.clone(), n) {
            wrong.push(format!("cases {other} and {n} have the same error: {}", ran.err));
        }
        mend(&path, good);
        assert!(!dir.join("run").exists(), "case {n}, {file}: made a run");
    }
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
