//! The base of a run: what the adapter calls it, and whether it reads like a trained model.

use std::path::{Path, PathBuf};

use descant_testkit::Dice;
use descant_testkit::micro::{Micro, Options};
use descant_testkit::scratch;
use descant_testkit::shard::{Dtype, file_of, tensors_of};
use serde_json::Value;

use crate::binary::{Ran, descant, root};

const SMALL: [&str; 14] = [
    "--set",
    "train.max_steps=1",
    "--set",
    "train.warmup_steps=0",
    "--set",
    "train.micro_batch=1",
    "--set",
    "data.held_out=",
    "--set",
    "evaluate.suites=[]",
    "--set",
    "run.folder=run",
    "--device",
    "cpu",
];

fn train(folder: &Path, arguments: &[&str]) -> Ran {
    let ran = descant(folder, &[&["train"], arguments, &SMALL[..]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    ran
}

fn text(path: PathBuf) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// What the adapter of a run calls its base, and the front matter of its card.
fn named(folder: &Path) -> (Value, String) {
    let adapter = folder.join("run/adapter");
    let config: Value = serde_json::from_str(&text(adapter.join("adapter_config.json"))).unwrap();
    let card = text(adapter.join("README.md"));
    for written in [config.to_string(), card.clone()] {
        assert!(!written.contains(folder.to_str().unwrap()), "a path of this machine: {written}");
        assert!(!written.contains(root().canonicalize().unwrap().to_str().unwrap()), "{written}");
    }
    (config["base_model_name_or_path"].clone(), card.split("\n---\n").next().unwrap().to_owned())
}

#[test]
fn the_embedded_model_has_a_name_and_a_folder_is_called_by_its_own() {
    let dir = scratch();
    let at = root().canonicalize().unwrap();
    let ran = train(dir.path(), &["--root", at.to_str().unwrap()]);
    let (name, front) = named(dir.path());
    assert_eq!(name, "tiny-gpt-oss");
    assert!(front.contains("base_model: \"tiny-gpt-oss\""), "{front}");
    assert!(!ran.err.contains("base_model"), "{}", ran.err);

    let dir = scratch();
    let model = dir.path().join("my model");
    std::fs::create_dir(&model).unwrap();
    for entry in std::fs::read_dir(at.join("fixtures/tiny-gpt-oss")).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            std::fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
        }
    }
    let rows = at.join("fixtures/tiny-gpt-oss/data/held-out.jsonl");
    let sets = [format!("model.path={}/.", model.display()), format!("data.path={}", rows.display())];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set.as_str()]).collect();
    let ran = train(dir.path(), &sets);
    let (name, front) = named(dir.path());
    assert_eq!(name, "my model");
    assert!(!front.contains("base_model"), "no hub has it: {front}");
    assert!(
        ran.err.contains("warning: the adapter calls its base `my model`, after its folder"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("set model.name"), "{}", ran.err);

    let dir = scratch();
    let ran = train(dir.path(), &[&sets[..], &["--set", "model.name=me/mine"]].concat());
    let (name, front) = named(dir.path());
    assert_eq!(name, "me/mine");
    assert!(
        front.contains("base_model: \"me/mine\"") && !ran.err.contains("after its folder"),
        "{front} {}",
        ran.err
    );
}

/// A random model with the published vocabulary and tokenizer.
fn untrained(dir: &Path) -> Micro {
    const VOCABULARY: usize = 201_088;
    let micro = Micro::write(dir, &Options::default()).unwrap();
    let model = &micro.model;
    let built = descant(dir, &["tokenizer", "build", "--out", "published"]);
    assert_eq!(built.code, 0, "{}", built.err);
    for name in ["tokenizer.json", "chat_template.jinja"] {
        std::fs::copy(dir.join("published").join(name), model.join(name)).unwrap();
    }
    let mut config: Value = serde_json::from_str(&text(model.join("config.json"))).unwrap();
    config["vocab_size"] = VOCABULARY.into();
    descant_files::write_atomic(&model.join("config.json"), config.to_string().as_bytes()).unwrap();
    let mut tensors = tensors_of(&std::fs::read(model.join("model.safetensors")).unwrap());
    let mut dice = Dice::new(5);
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        let (dtype, shape, bytes) = tensors.get_mut(name).unwrap();
        assert_eq!(*dtype, Dtype::BF16);
        shape[0] = VOCABULARY;
        // Of about 0.5 to 1, either sign.
        let number = |draw: u64| ((draw as u16 & 0x8000) | 0x3f00 | (draw as u16 & 0x7f)).to_le_bytes();
        *bytes = (0..VOCABULARY * shape[1]).flat_map(|_| number(dice.draw())).collect();
    }
    descant_files::write_atomic(&model.join("model.safetensors"), &file_of(&tensors)).unwrap();
    micro
}

#[test]
fn a_base_that_reads_like_noise_is_refused_before_the_first_step_unless_it_is_wanted() {
    let dir = scratch();
    let micro = untrained(dir.path());
    let sets =
        [format!("model.path={}", micro.model.display()), format!("data.path={}", micro.data.display())];
    let mut arguments = vec!["train"];
    arguments.extend(sets.iter().flat_map(|set| ["--set", set.as_str()]));
    arguments.extend(SMALL);
    let ran = descant(dir.path(), &arguments);
    assert_eq!(ran.code, 2, "{}", ran.err);
    for words in [
        "error: the base does not read like a trained model",
        "a gpt-oss has 1 to 3, and 4 is the limit",
        "most likely the weights: random or synthetic ones",
        "its tokenizer is the published one, its chat template is the published one",
        "--set model.preflight=false",
    ] {
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
    assert!(!dir.path().join("run").exists(), "nothing was begun");
    let wanted = [&arguments[..], &["--set", "model.preflight=false"]].concat();
    let ran = descant(dir.path(), &wanted);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!ran.err.contains("nats a token on 4 short"), "{}", ran.err);
}

#[test]
fn a_small_vocabulary_is_not_looked_at() {
    let dir = scratch();
    let micro = Micro::write(dir.path(), &Options::default()).unwrap();
    let sets =
        [format!("model.path={}", micro.model.display()), format!("data.path={}", micro.data.display())];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set.as_str()]).collect();
    assert!(
        !train(dir.path(), &sets).err.contains("nats a token on"),
        "a random model of 1,536 words trains"
    );
}
