//! `generate` and `chat`, as people and scripts use them.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::binary::{OWN, descant, root};

/// Runs `descant chat` on the tiny model with these lines; what it wrote, and what it said.
fn chat(lines: &str, more: &[&str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_descant"));
    for name in OWN {
        command.env_remove(name);
    }
    command.current_dir(root()).args(["chat", "--greedy"]).args(more);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{err}");
    (out, err)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn put(path: &Path, text: &str) {
    std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn in_a_pipe_each_line_is_a_message_and_replies_are_plain() {
    let (out, err) = chat("What is 71 + 26?\n\n/reset\n/effort low\nWhat is 71 + 26?\n", &[]);
    assert_eq!(
        out,
        "| The task is to add 71 and 26. First we add the tens: 71 + 20 = 91. Then we add the ones: 91 + 6 = 97. The \
         answer is therefore 97.\nThe answer is 97.\n| Just add: 71 + 26 = 97.\nThe answer is 97.\n"
    );
    assert!(err.contains("Effort is low.") && !err.contains('\u{1b}') && !err.contains("left >"), "{err}");
}

#[test]
fn a_mistyped_command_says_so_and_the_conversation_goes_on() {
    let (out, err) =
        chat("/effort max\n/nothing\n/save\n/retry\n/compare\n/effort low\nWhat is 71 + 26?\n/help", &[]);
    for said in
        ["`max`", "there is no /nothing", "/save needs a file", "there is no reply", "there is no adapter"]
    {
        assert!(err.contains(said), "{said}: {err}");
    }
    assert!(out.contains("The answer is 97.") && out.contains("/language NAME"), "{out}");
}

#[test]
fn a_saved_conversation_is_a_row_that_is_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved.jsonl");
    put(&path, r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#);
    let save = format!(
        "/effort low\n/system Be brief.\n/language French\nWhat is 71 + 26?\n/save {}\n",
        path.display()
    );
    let (_, err) = chat(&save, &[]);
    let rows = lines(&std::fs::read_to_string(&path).unwrap());
    assert_eq!(rows.len(), 2, "what was there stays: {err}");
    let messages = rows[1]["messages"].as_array().unwrap();
    assert_eq!(messages[0]["content"], "reasoning language: French\n\nBe brief.");
    assert_eq!(messages.last().unwrap()["role"], "assistant");
    assert!(!messages.last().unwrap()["thinking"].as_str().unwrap().is_empty());
    let data = format!("data.path={}", toml::Value::String(path.display().to_string()));
    let plan = descant(root(), &["plan", "--set", &data, "--json"]);
    assert_eq!(plan.code, 0, "{}", plan.err);
    let rows = descant(root(), &["data", "render", "--input", path.to_str().unwrap(), "--json"]);
    assert_eq!((rows.code, rows.out.lines().count()), (0, 2), "{}", rows.err);
    assert!(rows.out.contains("reasoning language: French"), "{}", rows.out);
}

#[test]
fn efforts_and_prompts_together_are_what_each_is_alone() {
    let ask = |more: &[&str]| {
        let sampled = ["generate", "--json", "--seed", "5", "--temperature", "1.5", "--max-new-tokens", "40"];
        let ran = descant(root(), &[&sampled[..], more].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        lines(&ran.out)
    };
    let together = ask(&["--effort", "low,high", "--n", "2", "What is 71 + 26?", "Compute 88 + 10."]);
    assert_eq!(together.len(), 8);
    let last = &together[6];
    assert_eq!((&last["prompt"], &last["effort"]), (&Value::from("Compute 88 + 10."), &Value::from("high")));
    let alone = ask(&["--effort", "high", "Compute 88 + 10."]);
    assert_eq!(alone[0]["ids"], last["ids"]);
    assert_ne!(together[6]["ids"], together[7]["ids"], "samples differ");
    let table = descant(root(), &["generate", "--greedy", "--effort", "low,medium,high", "What is 71 + 26?"]);
    let rows: Vec<&str> = table.out.lines().filter(|line| line.ends_with("The answer is 97.")).collect();
    assert!(rows.len() >= 3 && rows[0].starts_with("low") && rows[2].starts_with("high"), "{}", table.out);
}

#[test]
fn log_probabilities_are_those_of_score() {
    let ids = "1523,30,1525,31,1524";
    let more = ["--max-new-tokens", "6", "--temperature", "2", "--top-k", "50", "--json", "--logprobs=2"];
    let ran = descant(root(), &[&["generate", "--ids", ids], &more[..]].concat());
    let answer: Value = serde_json::from_str(&ran.out).unwrap();
    let (new, told) = (answer["ids"].as_array().unwrap(), answer["log_probabilities"].as_array().unwrap());
    assert_eq!((new.len(), told.len(), answer["top"].as_array().unwrap().len()), (6, 6, 6));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    let all: Vec<String> =
        ids.split(',').map(str::to_owned).chain(new.iter().map(Value::to_string)).collect();
    put(&path, &format!("{{\"ids\": [{}]}}\n", all.join(",")));
    let scored = descant(root(), &["score", "--input", path.to_str().unwrap(), "--json"]);
    let scored: Value = serde_json::from_str(&scored.out).unwrap();
    let scored = scored["logprobs"].as_array().unwrap();
    for (told, scored) in told.iter().zip(&scored[4..]) {
        assert!((told.as_f64().unwrap() - scored.as_f64().unwrap()).abs() < 1e-4, "{told} {scored}");
    }
}

#[test]
fn replies_to_a_file_are_resumed_to_the_same_bytes_and_never_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.jsonl");
    put(
        &input,
        "{\"prompt\": \"What is 71 + 26?\"}\n{\"id\": \"b\", \"messages\": [{\"role\": \"user\", \"content\": \"Compute \
         88 + 10.\"}, {\"role\": \"assistant\", \"content\": \"old\"}], \"reasoning_effort\": \"low\"}\n",
    );
    let ask = |out: &Path, more: &[&str]| {
        let files = ["--input", input.to_str().unwrap(), "--out", out.to_str().unwrap()];
        descant(root(), &[&["generate", "--n", "2", "--batch", "3"], &files[..], more].concat())
    };
    let (whole, cut) = (folder.path().join("whole.jsonl"), folder.path().join("cut.jsonl"));
    let ran = ask(&whole, &[]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let text = std::fs::read_to_string(&whole).unwrap();
    let rows = lines(&text);
    assert_eq!(rows.len(), 4);
    assert_eq!(
        (&rows[0]["reasoning_effort"], &rows[2]["reasoning_effort"]),
        (&"medium".into(), &"low".into())
    );
    assert!(!text.contains("\"old\""), "the row's own reply is left out");
    let first = text.lines().next().unwrap().len();
    put(&cut, &text[..first + 20]);
    let ran = ask(&cut, &[]);
    assert!(ran.code == 0 && ran.err.contains("1 of 4 replies already exist"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&cut).unwrap(), text);
    let other = ask(&cut, &["--seed", "6"]);
    assert!(other.code == 2 && other.err.contains("line 1 was made with other settings"), "{}", other.err);
    assert_eq!(std::fs::read_to_string(&cut).unwrap(), text, "nothing is lost");
    assert_eq!(ask(&cut, &["--seed", "6", "--force"]).code, 0);
    let render = descant(root(), &["data", "render", "--input", whole.to_str().unwrap(), "--json"]);
    assert!(render.code == 0 && render.out.lines().count() >= 2, "rows to train on: {}", render.err);
}

#[test]
fn a_reader_that_goes_away_ends_a_stream_without_an_error() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_descant"));
    let arguments =
        ["generate", "--stream", "--ignore-eos", "--max-new-tokens", "100000", "What is 71 + 26?"];
    command.current_dir(root()).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut some = [0; 4];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut some).unwrap();
    drop(out);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn settings_out_of_range_are_named_before_the_model_is_loaded() {
    for (arguments, said) in [
        (["--min-p", "2"], "--min-p is 2"),
        (["--repetition-penalty", "0"], "--repetition-penalty is 0"),
        (["--temperature", "-1"], "--temperature is -1"),
        (["--effort", "low,max"], "--effort is `max`"),
    ] {
        let arguments = [&["generate", "x"], &arguments.map(|word| word)[..]].concat();
        let joined = [arguments[0], arguments[1], &format!("{}={}", arguments[2], arguments[3])];
        let ran = descant(root(), &joined);
        assert!(ran.code == 2 && ran.err.contains(said), "{said}: {}", ran.err);
    }
}
