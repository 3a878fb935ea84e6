//! `descant train` and `descant evaluate` from end to end, as short as they can be.

use std::path::Path;

use serde_json::Value;

use crate::binary::{Ran, descant, descant_with, root};

/// Few steps, few prompts, one effort.
const SHORT: [&str; 12] = [
    "--set",
    "train.max_steps=4",
    "--set",
    "train.warmup_steps=1",
    "--set",
    "train.micro_batch=3",
    "--set",
    "evaluate.prompts=3",
    "--set",
    "evaluate.max_new_tokens=60",
    "--set",
    "evaluate.efforts=[\"low\"]",
];

fn train(folder: &Path, more: &[&str]) -> Ran {
    let place = format!("run.folder={}", folder.display());
    descant(root(), &[&["train", "--set", &place], &SHORT[..], more].concat())
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// What a run looks at beside its steps: the gradient by site, and the load of the experts.
fn looked_at(folder: &Path, steps: &[Value]) {
    // The gradient by site adds up to the whole one, and every token goes to as many experts as the model says.
    let gradients: Vec<Value> =
        read(folder, "gradients.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(gradients.len(), 4);
    for (line, step) in gradients.iter().zip(steps) {
        let norms = line["norms"].as_object().unwrap();
        assert_eq!((&line["v"], &line["step"], norms.len()), (&1.into(), &step["step"], 24));
        let whole = norms.values().map(|norm| norm.as_f64().unwrap().powi(2)).sum::<f64>().sqrt();
        let told = step["grad_norm"].as_f64().unwrap();
        assert!((whole / told - 1.0).abs() < 1e-4, "{whole} {told}");
    }
    let experts: Value = serde_json::from_str(&read(folder, "experts.json")).unwrap();
    for side in ["before", "after"] {
        let tokens = experts[side]["tokens"].as_u64().unwrap();
        let layers = experts[side]["layers"].as_array().unwrap();
        assert_eq!((layers.len(), tokens > 4000), (6, true), "{tokens}");
        for layer in layers {
            let counts = layer.as_array().unwrap().iter().map(|count| count.as_u64().unwrap());
            assert_eq!(counts.clone().count(), 8);
            assert_eq!(counts.sum::<u64>(), tokens * experts["experts_per_token"].as_u64().unwrap());
        }
    }
    let report = read(folder, "report.html");
    for part in ["Load of the experts", "Gradient norm by matrix"] {
        assert!(report.contains(part), "{part}");
    }
}

#[test]
fn a_run_leaves_everything_it_promises_and_repeats_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let ran = train(&first, &["--json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);

    for label in [
        "model",
        "device",
        "trained",
        "data",
        "languages",
        "steps",
        "memory",
        "prompts",
        "settings",
        "run",
        "loss",
        "first token",
        "speed",
        "adapter",
        "report",
        "next",
    ] {
        assert!(ran.err.lines().any(|line| line.starts_with(label)), "{label}:\n{}", ran.err);
    }
    assert!(ran.err.contains(
        "55,296 of 3,273,440 parameters, 1.69 %: LoRA r 8, alpha 16 on q_proj, k_proj, v_proj, o_proj"
    ));
    let summary: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&summary["steps"], &summary["trained_parameters"]), (&Value::from(4), &Value::from(55_296)));

    let metrics = read(&first, "metrics.jsonl");
    let steps: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(steps.len(), 4);
    assert_eq!(steps[0]["learning_rate"], 0.0, "the first rate is 0");
    for (step, number) in steps.iter().zip(1..) {
        assert_eq!((&step["v"], &step["step"], &step["samples"]), (&1.into(), &number.into(), &3.into()));
        let bits = f32::from_bits(step["loss_bits"].as_u64().unwrap() as u32);
        assert_eq!(bits.to_bits(), (step["loss"].as_f64().unwrap() as f32).to_bits());
    }
    assert_eq!(read(&first, "timing.jsonl").lines().count(), 4);
    let data: Value = serde_json::from_str(&read(&first, "data.json")).unwrap();
    assert_eq!(
        data["template"]["sha256"],
        "a4c9919cbbd4acdd51ccffe22da049264b1b73e59055fa58811a99efbd7c8146"
    );
    let tokens = |class: &str| data["account"]["tokens"][class]["trained"].as_u64().unwrap();
    assert!(tokens("analysis") > tokens("final") && tokens("final") > 0, "{data}");
    let languages = data["languages"].as_array().unwrap().iter();
    let examples: u64 = languages.map(|share| share["examples"].as_u64().unwrap()).sum();
    assert_eq!(data["examples"], examples);
    let manifest: Value = serde_json::from_str(&read(&first, "manifest.json")).unwrap();
    assert_eq!(manifest["total"], 55_296);
    let evaluation: Value = serde_json::from_str(&read(&first, "evaluation.json")).unwrap();
    assert_eq!(evaluation["before"]["cells"][0]["n"], 3);
    let loss = |when: &str| evaluation[when]["loss"]["channels"]["all"]["mean_nats"].as_f64().unwrap();
    assert!(loss("after") < loss("before") && loss("after") > 0.0, "{evaluation}");
    assert_eq!(evaluation["headline"], summary["headline"]);
    for (name, side) in [("samples-before.jsonl", "before"), ("samples-after.jsonl", "after")] {
        let replies = read(&first, name).lines().filter(|line| line.starts_with("{\"question\"")).count();
        assert_eq!(evaluation[side]["replies"], replies, "{name}");
    }
    looked_at(&first, &steps);
    let report = read(&first, "report.html");
    assert!(report.contains("<polyline class=\"l1\"") && report.contains("<h2 id=\"key\">"));
    assert!(first.join("adapter/adapter_config.json").is_file());
    let card = read(&first, "adapter/README.md");
    assert!(card.starts_with("---\nbase_model: \"tiny-gpt-oss\"\n"), "{card}");
    assert!(card.contains("\nlibrary_name: peft\n") && card.contains("## Results"), "{card}");
    assert!(first.join("tensorboard").read_dir().unwrap().count() == 1);

    // Every figure can be made again from the replies alone.
    let place = |name: &str| first.join(name).display().to_string();
    let from = [
        "evaluate",
        "--from",
        &place("samples-after.jsonl"),
        "--before",
        &place("samples-before.jsonl"),
        "--json",
    ];
    let ran = descant(root(), &from);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let again: Value = serde_json::from_str(&ran.out).unwrap();
    for key in ["before", "after", "changes", "spill_over", "headline", "questions_sha256"] {
        assert_eq!(again[key], evaluation[key], "{key}");
    }
    // And so can the page.
    std::fs::remove_file(first.join("report.html")).unwrap();
    let ran = descant(root(), &["report", first.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(read(&first, "report.html"), report);

    // The saved settings are settings; another run of them is the same run.
    let again = ["--set".to_owned(), format!("run.folder={}", second.display())];
    let file = first.join("config.toml");
    let ran = descant(root(), &["train", file.to_str().unwrap(), &again[0], &again[1], "-q"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.contains("percent of replies") && ran.out.contains("worse  "), "{}", ran.out);
    assert_eq!(read(&second, "metrics.jsonl"), metrics);
    let adapter = |folder: &Path| std::fs::read(folder.join("adapter/adapter_model.safetensors")).unwrap();
    assert_eq!(adapter(&first), adapter(&second));

    // Other settings are another run: what was compared can differ.
    let third = dir.path().join("third");
    assert_eq!(train(&third, &["-q", "--set", "train.seed=1"]).code, 0);
    assert_ne!(read(&third, "metrics.jsonl"), metrics);
    assert_ne!(adapter(&first), adapter(&third));
}

#[test]
fn packed_weighted_and_with_another_template_a_run_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let template = dir.path().join("own.jinja");
    let official = std::fs::read_to_string(root().join("fixtures/tiny-gpt-oss/chat_template.jinja")).unwrap();
    let mut file = std::fs::File::create(&template).unwrap();
    std::io::Write::write_all(&mut file, (official + "{# mine #}").as_bytes()).unwrap();
    // The one held-out row that is asked about.
    let held_out = std::fs::read_to_string(root().join("fixtures/tiny-gpt-oss/data/held-out.jsonl")).unwrap();
    let first = dir.path().join("first.jsonl");
    let mut file = std::fs::File::create(&first).unwrap();
    std::io::Write::write_all(&mut file, held_out.lines().next().unwrap().as_bytes()).unwrap();
    let validation = format!("data.validation={}", first.display());
    let more = [
        "--chat-template",
        template.to_str().unwrap(),
        "--set",
        "train.packing=true",
        "--set",
        "train.max_sequence=1024",
        "--set",
        "train.micro_batch=1",
        "--set",
        "data.loss.final=0",
        "--set",
        "evaluate.prompts=1",
        "--set",
        &validation,
        "--set",
        "validate.every=2",
    ];
    let ran = train(&folder, &more);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("4 x 1 packed sequences, up to 1,024 tokens a step"), "{}", ran.err);
    let data: Value = serde_json::from_str(&read(&folder, "data.json")).unwrap();
    assert!(data["template"]["source"].as_str().unwrap().ends_with("own.jinja"));
    assert_ne!(
        data["template"]["sha256"],
        "a4c9919cbbd4acdd51ccffe22da049264b1b73e59055fa58811a99efbd7c8146"
    );
    assert_eq!(data["account"]["tokens"]["final"]["trained"], 0);
    // The held-out rows as validation data: their curve ends where the measurement after the steps is.
    let steps = read(&folder, "metrics.jsonl");
    let steps: Vec<Value> = steps.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let curve: Vec<(u64, f64)> = steps
        .iter()
        .filter_map(|step| Some((step["step"].as_u64()?, step["validation"]["loss"].as_f64()?)))
        .collect();
    assert_eq!(curve.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [2, 4]);
    let evaluation: Value = serde_json::from_str(&read(&folder, "evaluation.json")).unwrap();
    let after = evaluation["after"]["loss"]["channels"]["all"]["mean_nats"].as_f64().unwrap();
    let (second, last) = (curve[0].1, curve[1].1);
    assert!((last - after).abs() < 1e-6 && (second - after).abs() > 1e-6, "{second} {last} {after}");
    for line in read(&folder, "metrics.jsonl").lines() {
        let step: Value = serde_json::from_str(line).unwrap();
        let (samples, tokens) = (step["samples"].as_u64().unwrap(), step["tokens"].as_u64().unwrap());
        assert!(samples > 3 && (900..=1024).contains(&tokens), "{step}");
    }
}

#[test]
fn an_earlier_run_is_replaced_only_when_forced() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    std::fs::create_dir_all(folder.join("adapter")).unwrap();
    let ran = train(&folder, &[]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("already contains files\nhint: set run.folder to another one"), "{}", ran.err);
    assert!(folder.join("adapter").is_dir());
}

#[test]
fn evaluate_counts_and_answers_no_below_a_limit() {
    let arguments = [
        "evaluate",
        "--json",
        "--at-least",
        "95",
        "--set",
        "evaluate.prompts=4",
        "--set",
        "evaluate.efforts=[\"low\"]",
    ];
    let ran = descant(root(), &arguments);
    let answer: Value = serde_json::from_str(&ran.out).unwrap();
    let cell = |asked: &str| {
        let cells = answer["before"]["cells"].as_array().unwrap().iter();
        cells.clone().find(|cell| cell["asked"] == asked).unwrap_or_else(|| panic!("{answer}")).clone()
    };
    // The base reasons in English whatever is asked.
    let (unasked, asked) = (cell("none"), cell("any"));
    let found =
        |cell: &Value| ["en", "unsure"].iter().filter_map(|code| cell["found"][code].as_u64()).sum::<u64>();
    assert_eq!((&unasked["n"], &unasked["valid"], found(&unasked)), (&4.into(), &4.into(), 4));
    assert_eq!((&asked["n"], &asked["hit"], found(&asked)), (&4.into(), &0.into(), 4));
    assert_eq!(ran.code, 1, "the language asked was found nowhere");
    assert!(ran.err.contains("95: low effort, a language asked: 0 of 4 are 0.0 %"), "{}", ran.err);
}

#[test]
fn progress_is_shown_as_lines_unless_nobody_wants_it() {
    let few = ["--set", "evaluate.prompts=1", "--set", "evaluate.efforts=[\"low\"]"];
    let arguments = [&["evaluate"][..], &few].concat();
    // Every line of a log has the time since the start.
    let shows =
        |err: &str| err.lines().any(|line| line.starts_with("0:") && line.contains("  base     2/2 in "));
    let shown = descant(root(), &arguments);
    assert!(shown.code == 0 && shows(&shown.err), "{}", shown.err);
    let hidden = descant_with(root(), &arguments, &[("DESCANT_NO_PROGRESS", "1")]);
    assert!(hidden.code == 0 && !shows(&hidden.err) && hidden.err.starts_with("model "), "{}", hidden.err);
    assert_eq!(shown.out, hidden.out);
}

#[test]
fn an_evaluation_that_is_cut_off_goes_on_to_the_same_replies() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("measured");
    let more =
        ["--set", "evaluate.prompts=4", "--set", "evaluate.batch=2", "--set", "evaluate.max_new_tokens=40"];
    let place = out.display().to_string();
    let arguments =
        [&["evaluate", "--json", "--out", &place, "--set", "evaluate.efforts=[\"low\"]"][..], &more].concat();
    let whole = descant(root(), &arguments);
    assert_eq!(whole.code, 0, "{}", whole.err);
    let text = read(&out, "samples.jsonl");
    let replies = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.starts_with("{\"question\"")).map(str::to_owned).collect()
    };
    assert_eq!(replies(&text).len(), 8);
    // In the middle of the second batch, and of a line.
    let second = text.match_indices("{\"question\"").nth(3).unwrap().0;
    let mut file = std::fs::File::create(out.join("samples.jsonl")).unwrap();
    std::io::Write::write_all(&mut file, &text.as_bytes()[..second + 40]).unwrap();
    let again = descant(root(), &arguments);
    assert_eq!(again.code, 0, "{}", again.err);
    assert_eq!(replies(&read(&out, "samples.jsonl")), replies(&text));
    let figures = |ran: &Ran| -> Value {
        let mut json: Value = serde_json::from_str(&ran.out).unwrap();
        json["before"].as_object_mut().unwrap().remove("tokens_per_second");
        json.as_object_mut().unwrap().remove("samples");
        json
    };
    assert_eq!(figures(&again), figures(&whole));
    // Asked otherwise, it is another evaluation, and nothing is lost.
    let other = descant(root(), &[&arguments[..], &["--set", "evaluate.seed=1"]].concat());
    assert_eq!(other.code, 2);
    assert!(other.err.contains("made with another `settings.seed`: 3407; now it is 1"), "{}", other.err);
    assert_eq!(replies(&read(&out, "samples.jsonl")), replies(&text));
}

/// The lines of a file of samples, without the seconds that decoding took.
fn lines_without_times(text: &str) -> Vec<Value> {
    let line = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        value.as_object_mut().unwrap().remove("seconds");
        value
    };
    text.lines().map(line).collect()
}

#[test]
fn an_evaluation_that_is_killed_ends_with_the_file_of_one_that_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let sets = ["evaluate.prompts=6", "evaluate.batch=2", "evaluate.max_new_tokens=60"];
    let command = |out: &Path| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_descant"));
        command.current_dir(root()).args(["evaluate", "-q", "--set", "evaluate.efforts=[\"low\"]", "--out"]);
        command.arg(out);
        for set in sets {
            command.args(["--set", set]);
        }
        command.stdout(std::process::Stdio::null());
        command
    };
    let whole = dir.path().join("whole");
    assert!(command(&whole).status().unwrap().success());
    let expected = lines_without_times(&read(&whole, "samples.jsonl"));
    assert!(expected.iter().filter(|line| line.get("batch").is_some()).count() >= 6, "several batches");

    let killed = dir.path().join("killed");
    let mut kills = 0;
    // Each process is killed as soon as it has added something.
    loop {
        let file = killed.join("samples.jsonl");
        let length = || std::fs::metadata(&file).map_or(0, |of| of.len());
        let before = length();
        let mut child = command(&killed).spawn().unwrap();
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if kills < 4 && length() > before.max(1) {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        };
        match ended {
            Some(status) => break assert!(status.success()),
            None => kills += 1,
        }
    }
    assert_eq!(kills, 4);
    assert_eq!(lines_without_times(&read(&killed, "samples.jsonl")), expected);
    let figures = |folder: &Path| {
        let mut json: Value = serde_json::from_str(&read(folder, "evaluation.json")).unwrap();
        // What depends on the seconds.
        json["before"].as_object_mut().unwrap().remove("tokens_per_second");
        json.as_object_mut().unwrap().remove("samples");
        json
    };
    assert_eq!(figures(&killed), figures(&whole));
}

#[test]
fn figures_and_verdicts_need_no_model() {
    let fixtures = root().join("fixtures/evaluate");
    let place = |name: &str| fixtures.join(name).display().to_string();
    let (after, before) = (place("golden/after.jsonl"), place("golden/before.jsonl"));
    let from = ["evaluate", "--from", &after, "--before", &before];
    let ran = descant(root(), &[&from[..], &["--json"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    let golden: Value =
        serde_json::from_str(&std::fs::read_to_string(place("golden/evaluation.json")).unwrap()).unwrap();
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (&found["headline"], &found["spill_over"]["judged"]),
        (&golden["headline"], &golden["spill_over"]["judged"])
    );
    let limits = ["--at-least", "hit=90", "--at-least", "spill-over=1", "--at-least", "right-change=-30"];
    let ran = descant(root(), &[&from[..], &limits].concat());
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("spill-over=1: 3 of 90") && !ran.err.contains("right-change"), "{}", ran.err);
    let ran = descant(root(), &[&from[..], &["--at-least", "answer=1"]].concat());
    assert_eq!(ran.code, 2, "no question states the language of its answer: {}", ran.err);

    let verdicts = descant(root(), &["evaluate", "--judge", &place("verdicts.jsonl"), "--json"]);
    assert_eq!(verdicts.code, 0, "{}", verdicts.err);
    let first: Value = serde_json::from_str(verdicts.out.lines().next().unwrap()).unwrap();
    assert_eq!((verdicts.out.lines().count(), &first["harmony"]), (480, &Value::from("valid")));
}
