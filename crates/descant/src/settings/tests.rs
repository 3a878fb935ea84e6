//! The written file is the defaults; every key can be set; wrong words are shown and explained.

use descant_harmony::read::Format;
use descant_harmony::{MaskPolicy, ViewPolicy};
use descant_testkit::door::{Limits, check};
use descant_testkit::heap::{Counting, Whose};

use super::*;
use crate::failure::hints;

/// Counts what damaged settings take.
#[global_allocator]
static HEAP: Counting = Counting;

fn from_text(text: &str) -> anyhow::Result<Resolved> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.toml");
    std::fs::File::create(&path)
        .and_then(|mut f| std::io::Write::write_all(&mut f, text.as_bytes()))
        .unwrap();
    let display = dir.path().display().to_string() + "/";
    resolve(Some(&path), &[]).map_err(|e| {
        let hints = hints(&e).join("; ");
        anyhow::anyhow!("{}\n{}", format!("{e:#}").replace(&display, ""), format!("hint: {hints}").trim_end())
    })
}

fn sets(sets: &[&str]) -> anyhow::Result<Settings> {
    Ok(resolve(None, &sets.iter().map(ToString::to_string).collect::<Vec<_>>())?.settings)
}

#[test]
fn the_written_file_is_the_defaults_but_for_six_keys() {
    let written = resolve(None, &[]).unwrap().settings;
    written.validate().unwrap();
    let mut defaults = Settings::default();
    assert!((written.train.learning_rate - 5e-3).abs() < 1e-12);
    defaults.train.learning_rate = written.train.learning_rate;
    defaults.model.path = "fixtures/tiny-gpt-oss".into();
    defaults.data.path = "fixtures/tiny-gpt-oss/data/multilingual-thinking-tiny-efforts.jsonl".into();
    defaults.data.held_out = Some("fixtures/tiny-gpt-oss/data/held-out.jsonl".into());
    defaults.evaluate.languages = ["en", "fr", "de", "es", "it"].map(str::to_owned).to_vec();
    defaults.evaluate.quick = false;
    assert_eq!(written, defaults);
}

#[test]
fn the_written_file_names_and_explains_every_key() {
    for key in keys::known() {
        let (section, name) = key.rsplit_once('.').unwrap();
        let body = DEFAULT_TOML.split(&format!("\n[{section}]\n")).nth(1).expect(section);
        let body = body.split("\n[").next().unwrap();
        let line = body.lines().position(|l| l.trim_start_matches("# ").starts_with(&format!("{name} =")));
        let line = line.unwrap_or_else(|| panic!("{key} is not in default.toml"));
        let explained = body.lines().take(line).any(|l| l.starts_with("# "));
        assert!(explained, "{key} is not explained");
    }
    assert!(DEFAULT_TOML.lines().all(|line| line.len() <= 120));
}

#[test]
fn a_limit_of_memory_may_be_a_number() {
    let limit = |set: &str| sets(&[set]).unwrap().memory.limit().unwrap();
    assert_eq!(limit("memory.limit=12000000000"), Some(12_000_000_000));
    assert_eq!(limit("memory.limit=12GB"), Some(12_000_000_000));
    let error = format!("{:#}", sets(&["memory.limit=true"]).unwrap_err());
    assert!(error.contains("expected an amount such as 14.5GiB, or a number of bytes"), "{error}");
}

#[test]
fn a_file_of_rows_is_not_taken_for_settings() {
    let error = resolve(Some(std::path::Path::new("chats/my.JSONL")), &[]).unwrap_err();
    assert_eq!(error.to_string(), "chats/my.JSONL: a file of data, not of settings, which are TOML");
    assert!(hints(&error).join("").contains("--set data.path=chats/my.JSONL"), "{:?}", hints(&error));
}

#[test]
fn an_empty_name_of_held_out_prompts_takes_them_back() {
    assert!(sets(&[]).unwrap().data.held_out.is_some());
    assert_eq!(sets(&["data.held_out="]).unwrap().data.held_out, None);
    assert_eq!(sets(&["data.held_out=x"]).unwrap().data.held_out, Some("x".into()));
}

#[test]
fn what_is_resolved_reads_back_as_itself() {
    let first = resolve(None, &["run.folder=runs/x".into(), "evaluate.prompts=3".into()]).unwrap();
    let second = from_text(&first.text).unwrap();
    assert_eq!(first.settings, second.settings);
    assert_eq!((&first.text, &first.sha256), (&second.text, &second.sha256));
    assert_eq!(first.sha256.len(), 64);
    assert_ne!(first.sha256, resolve(None, &[]).unwrap().sha256);
    assert_eq!(first.origin, "embedded default + 2 --set");
}

#[test]
fn set_is_typed_by_toml_and_bare_words_are_strings() {
    let s = sets(&[
        "train.max_steps=7",
        "train.learning_rate = 1e-4",
        "lora.targets=[\"q_proj\"]",
        "lora.alpha=32",
        "model.device=cuda:1",
        "data.mask=final_only",
        "data.date=2026-01-02",
        "data.loss.final=0.5",
        "data.loss.analysis=2",
        "data.views=whole_row",
        "data.format=sharegpt",
        "model.chat_template=other.jinja",
        "train.packing=true",
        "run.folder=runs/a b",
        "train.schedule=\"cosine\"",
    ])
    .unwrap();
    assert_eq!(s.train.max_steps, 7);
    assert_eq!(s.train.learning_rate.to_bits(), 1e-4_f64.to_bits());
    assert_eq!(s.lora.targets, ["q_proj"]);
    assert_eq!(s.lora.alpha.to_bits(), 32_f64.to_bits());
    assert_eq!(s.model.device, "cuda:1");
    assert_eq!(s.data.mask, MaskPolicy::FinalOnly);
    assert_eq!(s.data.date, "2026-01-02");
    assert_eq!(s.run.folder, Some("runs/a b".into()));
    assert_eq!(s.train.schedule, descant_train::Schedule::Cosine);
    let loss = &s.data.loss;
    assert_eq!((loss.analysis, loss.commentary, loss.final_), (2.0, 1.0, 0.5));
    assert_eq!(s.data.views, ViewPolicy::WholeRow);
    assert_eq!(s.data.format, Some(Format::ShareGpt));
    assert_eq!(s.model.chat_template, Some("other.jinja".into()));
    assert!(s.train.packing);
    s.validate().unwrap();
}

#[test]
fn wrong_sets_say_which_and_why() {
    for (set, expected, hint) in [
        ("train.max_steps", "--set train.max_steps: no `=`", "write --set train.max_steps=200"),
        ("lr=1", "--set lr=1: unknown key `lr`", "write train.learning_rate"),
        ("train.max_steps=-1", "--set train.max_steps=-1: invalid value: integer `-1`, expected u64", ""),
        ("data.mask=all", "--set data.mask=all: unknown variant `all`", ""),
        ("data.mask=1", "--set data.mask=1: invalid type: expected one of the key's words", ""),
        ("train.max_steps=1\nx=2", "--set train.max_steps=1\nx=2: invalid type: string", ""),
    ] {
        let error = sets(&[set]).unwrap_err();
        assert!(format!("{error:#}").starts_with(expected), "{error:#}");
        assert_eq!(hints(&error).join(""), hint);
    }
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    for (set, expected) in [
        ("train.learning_rate=nan", "train.learning_rate is NaN"),
        ("train.learning_rate=-1e-3", "train.learning_rate is -0.001"),
        ("train.micro_batch=0", "train.micro_batch is 0"),
        ("data.loss.final=-1", "data.loss.final is -1; expected 0 or more"),
        ("data.loss.analysis=nan", "data.loss.analysis is NaN"),
        ("lora.r=0", "lora.r is 0; expected 1 to 4096"),
        ("lora.r=1000000", "lora.r is 1000000"),
        ("lora.alpha=inf", "lora.alpha is inf"),
        ("lora.targets=[]", "lora.targets is empty"),
        (
            "lora.targets=[\"q_proj\", \"q\"]",
            "lora.targets: `q` matches nothing in gpt-oss; known: q_proj, k_proj",
        ),
        ("lora.targets=[\"q_proj\", \"q_proj\"]", "lora.targets: `q_proj` is listed twice"),
        ("data.date=tomorrow", "data.date is `tomorrow`"),
        ("data.date=2025-13-05", "data.date is `2025-13-05`"),
        ("data.effort=hard", "data.effort is `hard`; expected low, medium or high"),
        ("evaluate.efforts=[\"low\",\"low\"]", "evaluate.efforts names `low` twice"),
        ("evaluate.batch=0", "evaluate.batch is 0"),
        ("evaluate.prompts=0", "evaluate.prompts is 0; expected at least 1"),
        ("validate.patience=4", "validate.patience is 4, but data.validation names nothing to validate on"),
        ("model.path=\"\"", "model.path is not set"),
        ("train.warmup_steps=61", "train.warmup_steps is 61 but the run has only 60 steps"),
    ] {
        let error = sets(&[set]).unwrap().validate().unwrap_err();
        assert!(error.starts_with(expected), "{set}: {error}");
    }
}

#[test]
fn a_wrong_key_in_a_file_is_shown_where_it_stands() {
    let files = [
        "[train]\nmax_steps = 7\n  lora_alpha = 16\n",
        "learning_rate = 3\n",
        "[trainer]\nx = 3\n",
        "[train]\nmax_steps = \"many\"\n",
        "[train\n",
        "[data.loss]\nreasoning = 1.0\n",
        "[data]\nloss = 3\n",
    ];
    let errors: Vec<_> = files.iter().map(|text| from_text(text).unwrap_err().to_string()).collect();
    insta::assert_snapshot!(errors.join("\n\n"), @r##"
    run.toml:3:3: unknown key `train.lora_alpha`
      |
    3 |   lora_alpha = 16
      |   ^
    hint: write lora.alpha

    run.toml:1:1: unknown key `learning_rate`
      |
    1 | learning_rate = 3
      | ^
    hint: did you mean train.learning_rate?

    run.toml:1:2: unknown key `trainer`
      |
    1 | [trainer]
      |  ^
    hint: did you mean [train]?

    run.toml:2:13: invalid type: string "many", expected u64
      |
    2 | max_steps = "many"
      |             ^
    hint:

    run.toml:1:7: unclosed table, expected `]`
      |
    1 | [train
      |       ^
    hint:

    run.toml:2:1: unknown key `data.loss.reasoning`
      |
    2 | reasoning = 1.0
      | ^
    hint: descant init writes a file with every key

    run.toml:2:8: invalid type: integer `3`, expected struct LossWeights
      |
    2 | loss = 3
      |        ^
    hint:
    "##);
}

#[test]
fn a_missing_file_is_named_and_init_is_offered() {
    let error = resolve(Some(std::path::Path::new("no/such.toml")), &[]).unwrap_err();
    assert!(format!("{error:#}").starts_with("open no/such.toml: "), "{error:#}");
    assert_eq!(hints(&error), ["descant init writes a commented settings file"]);
}

#[test]
fn damaged_settings_are_taken_or_refused() {
    // Other tests run beside this one.
    let limits = Limits { whose: Whose::Thread, ..Limits::default() };
    let holds = |text: &[u8], sets: &[String]| {
        let text = String::from_utf8_lossy(text);
        resolve_text("run.toml", &text, sets).is_ok_and(|resolved| resolved.settings.validate().is_ok())
    };
    let good = resolve(None, &["run.folder=runs/x".into(), "evaluate.prompts=3".into()]).unwrap();
    check("run.toml", good.text.as_bytes(), limits, |bytes| holds(bytes, &[]));
    for set in ["train.learning_rate=2e-4", "evaluate.efforts=[\"low\", \"high\"]", "data.loss.final=0.5"] {
        let text = DEFAULT_TOML.as_bytes();
        check(set, set.as_bytes(), limits, |bytes| {
            holds(text, &[String::from_utf8_lossy(bytes).into_owned()])
        });
    }
}
