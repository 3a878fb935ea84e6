//! Streams, exit status, colour and words of errors, as `docs/cli.md` promises them.

use crate::binary::{descant, root};

#[test]
fn wrong_arguments_end_with_2_and_say_nothing_on_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["train", "--sett", "x=1"][..],
        &["score", "--model", "x"],
        &["generate"],
        &["generate", "--ids", "1,x"],
        &["generate", "--ids", "1", "--max-new-tokens", "18446744073709551615"],
        &["bench", "step", "--batch", "18446744073709551615"],
        &["generate", "--ids", "1", "--greedy", "--seed", "1"],
        &["nothing"],
        &["train", "-q", "-v"],
        &["train", "no/such.toml"],
        &["train", "--set", "train.max_steps=0"],
        &["train", "--set", "model.path=no/such/model"],
        &["score", "--model", "no/such/model", "--input", "x"],
    ] {
        let ran = descant(dir.path(), arguments);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}\n{}", ran.err);
        assert!(ran.err.starts_with("error: "), "{arguments:?}\n{}", ran.err);
        assert!(!ran.err.contains('\u{1b}') && !ran.err.contains("panicked"), "{arguments:?}\n{}", ran.err);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was left behind");
}

#[test]
fn a_self_test_wants_a_gpu_and_no_other_command_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let ran = descant(dir.path(), &["bench", "--self-test", "--device", "cpu"]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{}", ran.err);
    let said = "error: --self-test compares a GPU with the CPU, and the device is the cpu, ";
    assert!(ran.err.starts_with(said), "{}", ran.err);
    assert!(ran.err.contains("hint: run it where `descant doctor` finds a GPU"), "{}", ran.err);
    for arguments in [&["bench"][..], &["bench", "--kernels", "portable"], &["bench", "--self-test", "step"]]
    {
        let ran = descant(dir.path(), arguments);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}\n{}", ran.err);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was left behind");
}

#[test]
fn errors_say_what_where_and_what_now() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = dir.path().join("runs/first/adapter");
    std::fs::create_dir_all(&adapter).unwrap();
    std::fs::File::create(adapter.join("adapter_config.json")).unwrap();
    let commands: [&[&str]; 9] = [
        &["train", "no/such.toml"],
        &["train", "rows.jsonl"],
        &["train", "--data", "rows.jsonl"],
        &["train", "--set", "train.lora_alpha=32"],
        &["train", "--set", "lora.r=0"],
        &["train", "--set", "model.path=no/such/model"],
        &["train", "--set", "model.device=cuda"],
        &["evaluate", "--set", "model.device=tpu"],
        &["generate", "--adapter", "runs/first", "Hi"],
    ];
    // The root is where the embedded default is, the folder is where nothing is.
    let root = root().to_str().unwrap();
    let said: Vec<String> = commands
        .iter()
        .map(|arguments| {
            let ran = descant(dir.path(), &[&["--root", root][..], arguments].concat());
            format!("$ descant {}\n{}", arguments.join(" "), ran.err)
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"), @r##"
    $ descant train no/such.toml
    error: open no/such.toml: No such file or directory (os error 2)
    hint: descant init writes a commented settings file

    $ descant train rows.jsonl
    error: rows.jsonl: a file of data, not of settings, which are TOML
    hint: give it as --set data.path=rows.jsonl, or data.held_out for questions; `descant init` writes a settings file

    $ descant train --data rows.jsonl
    error: invalid value 'rows.jsonl' for '--data <DATA>': it is a setting: write --set data.path=rows.jsonl

    For more information, try '--help'.

    $ descant train --set train.lora_alpha=32
    error: --set train.lora_alpha=32: unknown key `train.lora_alpha`
    hint: write lora.alpha

    $ descant train --set lora.r=0
    error: lora.r is 0; expected 1 to 4096

    $ descant train --set model.path=no/such/model
    error: no/such/model is not a model directory: it has no config.json
    hint: give a folder with config.json, the safetensors files, tokenizer.json and chat_template.jinja

    $ descant train --set model.device=cuda
    error: device is `cuda`, but this build has no CUDA
    hint: build with `--features cuda`, or run `cargo xtask --cuda ...`

    $ descant evaluate --set model.device=tpu
    error: device is `tpu`; expected auto, cpu, cuda or cuda:N

    $ descant generate --adapter runs/first Hi
    error: runs/first is not an adapter: it has no adapter_config.json
    hint: a run writes its adapter to RUN/adapter: write --adapter runs/first/adapter
    "##);
}

#[test]
fn colour_is_there_when_asked_for_and_adds_no_word() {
    let dir = tempfile::tempdir().unwrap();
    let plain = descant(dir.path(), &["train", "no/such.toml", "--color", "never"]).err;
    let coloured = descant(dir.path(), &["train", "no/such.toml", "--color", "always"]).err;
    assert!(coloured.contains("\u{1b}["), "{coloured:?}");
    let mut stripped = String::new();
    for (at, piece) in coloured.split('\u{1b}').enumerate() {
        stripped += if at == 0 { piece } else { piece.split_once('m').unwrap().1 };
    }
    assert_eq!(stripped, plain);
}

#[test]
fn init_writes_what_train_reads_and_does_not_overwrite() {
    let dir = tempfile::tempdir().unwrap();
    let first = descant(dir.path(), &["init"]);
    assert_eq!((first.code, first.out.as_str()), (0, ""));
    assert_eq!(first.err, "wrote run.toml\nhint: descant train run.toml\n");
    let again = descant(dir.path(), &["init"]);
    assert_eq!(again.code, 2);
    assert_eq!(again.err, "error: run.toml exists\nhint: give another --out, or --force to replace it\n");
    assert_eq!(descant(dir.path(), &["init", "--force", "-q"]).err, "");
    let shown = descant(dir.path(), &["init", "--out", "-"]);
    let written = std::fs::read_to_string(dir.path().join("run.toml")).unwrap();
    assert_eq!(shown.out, written);
    assert_eq!(shown.err, "");
}

#[test]
fn a_dry_run_prints_settings_that_can_be_run() {
    let dir = tempfile::tempdir().unwrap();
    let ran = descant(root(), &["train", "--dry-run", "--set", "train.max_steps=7"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("\nmax_steps = 7\n"), "{}", ran.out);
    let file = dir.path().join("run.toml");
    std::io::Write::write_all(&mut std::fs::File::create(&file).unwrap(), ran.out.as_bytes()).unwrap();
    let again = descant(root(), &["train", "--dry-run", file.to_str().unwrap()]);
    assert_eq!((again.code, again.out), (0, ran.out));
}

#[test]
fn experts_in_fp8_are_refused_by_whoever_asked_for_them_and_where() {
    let error = |arguments: &[&str]| {
        let ran = descant(root(), arguments);
        assert_eq!(ran.code, 2, "{} {}", ran.out, ran.err);
        ran.err
    };
    let on_cpu = "needs a Hopper GPU (compute capability 9.0) and experts in MXFP4: the device is the CPU";
    let set = ["--set", "train.experts=\"fp8\"", "--set", "model.device=\"cpu\""];
    for command in [&["train", "--dry-run"][..], &["train"], &["plan"]] {
        let said = error(&[command, &set].concat());
        let expected = format!("train.experts is \"fp8\", which {on_cpu}; set train.experts = \"bf16\"");
        assert!(said.contains(&expected), "{said}");
    }
    let said = error(&["plan", "--card", "RTX 4090", "--set", "train.experts=\"fp8\""]);
    assert!(said.contains("the RTX 4090 has compute capability 8.9; set train.experts"), "{said}");
    let said = error(&["bench", "step", "--fp8", "--device", "cpu"]);
    assert!(
        said.contains(&format!("--fp8 {on_cpu}; leave out --fp8")) && !said.contains("train.experts"),
        "{said}"
    );
}

#[test]
fn the_embedded_default_is_found_from_any_folder_that_is_told_its_root() {
    let dir = tempfile::tempdir().unwrap();
    let root = root().to_str().unwrap();
    let arguments = ["generate", "--ids", "1523,30", "--max-new-tokens", "1", "--greedy"];
    let lost = descant(dir.path(), &arguments);
    assert_eq!(lost.code, 2);
    assert!(lost.err.starts_with("error: fixtures/tiny-gpt-oss is not a model directory"), "{}", lost.err);
    let found = descant(dir.path(), &[&["--root", root][..], &arguments].concat());
    assert_eq!(found.code, 0, "{}", found.err);
    // What the user names starts where the user is.
    let own = ["evaluate", "--root", root, "--set", "model.path=mine"];
    assert!(descant(dir.path(), &own).err.starts_with("error: mine is not a model directory"));
}
