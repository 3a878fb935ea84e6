//! The commands that programs call: `score` and `generate --ids`, by their contract.

use serde_json::Value;

use crate::binary::{descant, root};

/// Scores these lines with the tiny model.
fn score(lines: &[&str]) -> (i32, Vec<Value>, String) {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.jsonl");
    std::io::Write::write_all(&mut std::fs::File::create(&input).unwrap(), lines.join("\n").as_bytes())
        .unwrap();
    let arguments =
        ["score", "--model", "fixtures/tiny-gpt-oss", "--json", "--input", input.to_str().unwrap()];
    let ran = descant(root(), &arguments);
    let answers = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (ran.code, answers, ran.err)
}

fn logprobs(answer: &Value) -> Vec<f64> {
    answer["logprobs"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect()
}

#[test]
fn scores_are_logarithms_of_the_next_token_and_their_mean_over_the_labels() {
    let (code, answers, err) = score(&[
        r#"{"ids": [1523, 30, 40, 50, 60]}"#,
        r#"{"ids": [1523, 30, 40, 50, 60], "labels": [1, -100, 40, -100, 60]}"#,
        r#"{"ids": [1523, 30, 40, 50, 60], "labels": [1, -100, -100, -100, -100], "mine": "kept to yourself"}"#,
        "",
        r#"{"ids": [1523]}"#,
        r#"{"ids": [1523, 30, 40]}"#,
    ]);
    assert_eq!((code, answers.len()), (0, 5), "{err}");
    let all = logprobs(&answers[0]);
    assert_eq!(all.len(), 4);
    assert!(all.iter().all(|p| *p < 0.0 && *p > -60.0), "{all:?}");
    let near = |answer: &Value, expected: f64| {
        let loss = answer["loss"].as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-6, "{loss} {expected}");
    };
    near(&answers[0], -all.iter().sum::<f64>() / 4.0);
    // Labels are shifted: the label of a position says whether its own token, predicted before it, counts.
    near(&answers[1], -(all[1] + all[3]) / 2.0);
    assert_eq!(logprobs(&answers[1]), all);
    assert_eq!(answers[2]["loss"], Value::Null);
    assert_eq!((&answers[3]["loss"], logprobs(&answers[3])), (&Value::Null, vec![]));
    // What comes later does not change what came before.
    let start = logprobs(&answers[4]);
    assert!(start.iter().zip(&all).all(|(a, b)| (a - b).abs() < 1e-5), "{start:?} {all:?}");
    assert!(answers.iter().all(|a| a.as_object().unwrap().len() == 2));
}

#[test]
fn a_bad_line_is_named() {
    for (line, reason) in [
        (r#"{"ids": []}"#, "line 2"),
        (r#"{"ids": [1, 99999999]}"#, "line 2"),
        (r#"{"ids": [1, 2], "labels": [1]}"#, "2 ids but 1 labels"),
        (r#"{"ids": [1, -2]}"#, "line 2"),
        ("[1, 2]", "line 2"),
        ("{", "line 2"),
    ] {
        let (code, answers, err) = score(&[r#"{"ids": [1, 2]}"#, line]);
        assert_eq!((code, answers.len()), (2, 1), "{line}: {err}");
        assert!(err.contains(reason) && !err.contains("panicked"), "{line}: {err}");
    }
}

/// Continues ids; JSON.
fn generate(model: &str, ids: &str, more: &[&str]) -> Value {
    let arguments = [&["generate", "--model", model, "--ids", ids, "--json"], more].concat();
    let ran = descant(root(), &arguments);
    assert_eq!(ran.code, 0, "{}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

#[test]
fn greedy_continuation_is_that_of_transformers() {
    let text = std::fs::read_to_string(root().join("fixtures/golden/parity-a/expected.json")).unwrap();
    let greedy = &serde_json::from_str::<Value>(&text).unwrap()["greedy"];
    let prompt: Vec<String> = greedy["prompt"].as_array().unwrap().iter().map(Value::to_string).collect();
    let more = ["--max-new-tokens", "64", "--greedy", "--ignore-eos"];
    let answer = generate("fixtures/golden/parity-a", &prompt.join(","), &more);
    assert_eq!(answer["ids"], greedy["base"]);
    assert_eq!(answer["stop"], "length");
    assert_eq!(answer.as_object().unwrap().len(), 2);
}

#[test]
fn greedy_continuation_with_an_adapter_is_that_of_peft() {
    let text = std::fs::read_to_string(root().join("fixtures/golden/parity-b/expected.json")).unwrap();
    let greedy = &serde_json::from_str::<Value>(&text).unwrap()["greedy"];
    // `prompt` of case.safetensors.
    let prompt = "7,126,137,226,230,170,19";
    let more = ["--max-new-tokens", "32", "--greedy", "--ignore-eos"];
    let model = "fixtures/golden/parity-b";
    assert_eq!(generate(model, prompt, &more)["ids"], greedy["base"]);
    let adapted = [&more[..], &["--adapter", "fixtures/golden/parity-b/adapter"]].concat();
    assert_eq!(generate(model, prompt, &adapted)["ids"], greedy["lora"]);
}

#[test]
fn a_reply_stops_at_an_end_that_the_model_names_unless_told_to_go_on() {
    // `<|start|>user<|message|>What is 2 + 3?<|end|>...` in ids is not needed: any prompt of the tiny model ends.
    let ids = "1523,30,1525,31,1524";
    let stopped = generate("fixtures/tiny-gpt-oss", ids, &["--max-new-tokens", "400", "--greedy"]);
    let stopped_ids = stopped["ids"].as_array().unwrap();
    let ends = [1519, 1516, 1529].map(Value::from);
    assert_eq!(stopped["stop"], "stop_token", "{stopped}");
    assert!(ends.contains(stopped_ids.last().unwrap()), "{stopped}");
    assert!(!stopped_ids[..stopped_ids.len() - 1].iter().any(|id| ends.contains(id)));
    let n = stopped_ids.len() + 3;
    let more = ["--max-new-tokens", &n.to_string(), "--greedy", "--ignore-eos"];
    let going_on = generate("fixtures/tiny-gpt-oss", ids, &more);
    let going_on = going_on["ids"].as_array().unwrap();
    assert_eq!((going_on.len(), &going_on[..stopped_ids.len()]), (n, stopped_ids.as_slice()));
}

#[test]
fn sampling_repeats_itself_for_a_seed_and_differs_between_seeds() {
    let sample = |seed| {
        let more = ["--max-new-tokens", "40", "--seed", seed, "--temperature", "3", "--ignore-eos"];
        generate("fixtures/tiny-gpt-oss", "1523,30", &more)["ids"].clone()
    };
    assert_eq!(sample("1"), sample("1"));
    assert_ne!(sample("1"), sample("2"));
}

#[test]
fn text_is_rendered_answered_and_shown() {
    let arguments =
        ["generate", "--model", "fixtures/tiny-gpt-oss", "--greedy", "--effort", "low", "What is 71 + 26?"];
    let ran = descant(root(), &arguments);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(
        ran.out,
        "<|channel|>analysis<|message|>Just add: 71 + 26 = 97.<|end|><|start|>assistant<|channel|>final<|message|>\
         The answer is 97.<|return|>\n"
    );
    let json = descant(root(), &[&arguments[..], &["--json"]].concat());
    let answer: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(answer["text"].as_str().unwrap(), ran.out.trim_end());
    assert_eq!((&answer["stop"], &answer["ids"][0]), (&Value::from("stop_token"), &Value::from(1522)));
    let template = "a4c9919cbbd4acdd51ccffe22da049264b1b73e59055fa58811a99efbd7c8146";
    assert_eq!(answer["template_sha256"], template);
    assert!(ran.err.contains(&format!("chat_template.jinja (sha256 {template})")), "{}", ran.err);
}

#[test]
fn a_sequence_that_does_not_fit_is_refused_before_anything_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.jsonl");
    let long: Vec<u32> = (0..16_000).map(|id| id % 1000).collect();
    let of = |rows: &[&[u32]]| {
        rows.iter().map(|ids| serde_json::json!({ "ids": ids }).to_string() + "\n").collect::<String>()
    };
    let scored = |rows: &[&[u32]]| {
        descant_files::write_atomic(&input, of(rows).as_bytes()).unwrap();
        let (model, input) = ("fixtures/tiny-gpt-oss", input.to_str().unwrap());
        descant(root(), &["score", "--model", model, "--json", "--memory", "60MiB", "--input", input])
    };
    let short = scored(&[&long[..8]]);
    assert_eq!((short.code, short.out.lines().count()), (0, 1), "{}", short.err);
    let both = scored(&[&long[..8], &long]);
    assert_eq!((both.code, both.out.as_str()), (4, ""), "{}", both.err);
    assert!(both.err.contains("not enough memory") && both.err.contains("hint: "), "{}", both.err);
}
