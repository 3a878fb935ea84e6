//! `descant data` and `descant tokenizer`, by their contract.

use std::io::{Read as _, Write as _};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::binary::{Ran, descant, root};

const FIXTURE: &str = "fixtures/harmony/data/multilingual-thinking-24.jsonl";

/// A folder with the published tokenizer, made once.
fn gpt_oss() -> &'static Path {
    static MADE: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    MADE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("tokenizer");
        let ran = descant(root(), &["tokenizer", "build", "--out", out.to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        dir
    })
    .path()
}

fn written(lines: &[&str]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(lines.join("\n").as_bytes()).unwrap();
    file
}

fn rows(ran: &Ran) -> Vec<Value> {
    ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_tokenizer_is_built_as_published_and_not_written_over() {
    let out = gpt_oss().join("tokenizer");
    let path = out.to_str().unwrap();
    let again = descant(root(), &["tokenizer", "build", "--out", path]);
    assert_eq!(again.code, 0, "{}", again.err);
    assert_eq!(
        again.out,
        "0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3  tokenizer.json\n\
         9279e942392b742d633c7adbb89ebe002c98399db8926a7af5125c726f404070  tokenizer_config.json\n\
         dd5e191d20c12d2fee1da5bae14ca1db0f5f4215300af691f23cdee97120a293  special_tokens_map.json\n\
         a4c9919cbbd4acdd51ccffe22da049264b1b73e59055fa58811a99efbd7c8146  chat_template.jinja\n"
    );
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("chat_template.jinja");
    std::fs::File::create(&other).unwrap().write_all(b"mine").unwrap();
    let refused = descant(root(), &["tokenizer", "build", "--out", dir.path().to_str().unwrap()]);
    assert_eq!(refused.code, 2);
    assert!(
        refused.err.contains("chat_template.jinja exists and is another file\nhint: "),
        "{}",
        refused.err
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was written before the refusal");
}

/// All rows of the oracle, each field that `render` promises.
#[test]
fn exact_rendering_is_that_of_the_references() {
    let packed = root().join("fixtures/harmony/harmony.jsonl.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(&packed).unwrap()).read_to_string(&mut text).unwrap();
    let oracle: Vec<Map<String, Value>> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let model = gpt_oss().join("tokenizer");
    let arguments =
        ["data", "render", "--model", model.to_str().unwrap(), "--input", packed.to_str().unwrap()];
    let ran =
        descant(root(), &[&arguments[..], &["--date", "2025-08-13", "--template-exact", "--json"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    let answers = rows(&ran);
    assert_eq!((answers.len(), oracle.len()), (120, 120));
    let mut refused = 0;
    for (answer, row) in answers.iter().zip(&oracle) {
        let id = &row["id"];
        assert_eq!(&answer["id"], id);
        let reference = &row["template"];
        if reference.get("error").is_some() {
            assert!(answer["error"].is_string() && answer.as_object().unwrap().len() == 2, "{id}: {answer}");
            refused += 1;
            continue;
        }
        assert_eq!((&answer["text"], &answer["ids"]), (&reference["text"], &reference["ids"]), "{id}");
        assert_eq!(answer["mask"].as_array().unwrap().len(), answer["ids"].as_array().unwrap().len());
        let Some(messages) = reference.get("messages").and_then(Value::as_array) else { continue };
        let spans = |message: &Value| json!([message["start"], message["body"], message["end"]]);
        let (found, expected): (Vec<_>, Vec<_>) = (
            answer["messages"].as_array().unwrap().iter().map(spans).collect(),
            messages.iter().map(spans).collect(),
        );
        assert_eq!(found, expected, "{id}");
        for (message, reference) in answer["messages"].as_array().unwrap().iter().zip(messages) {
            let header = reference["header"].as_str().unwrap();
            let channel = message["channel"].as_str();
            assert!(channel.is_none_or(|channel| header.contains(&format!("<|channel|>{channel}"))), "{id}");
            assert_eq!(channel.is_some(), header.contains("<|channel|>"), "{id}");
            let role = message["role"].as_str().unwrap();
            assert!(
                header.starts_with(role) || (role == "tool" && header.contains(" to=assistant")),
                "{id} {header}"
            );
        }
    }
    assert_eq!(refused, 5);
    assert!(ran.err.contains("5 rows refused"), "{}", ran.err);
}

/// The text with trained tokens in brackets, from the first user message on.
fn bracketed(row: &Value) -> String {
    let ids: Vec<String> = row["ids"].as_array().unwrap().iter().map(Value::to_string).collect();
    let mask: Vec<u64> = row["mask"].as_array().unwrap().iter().map(|bit| bit.as_u64().unwrap()).collect();
    let from =
        row["messages"].as_array().unwrap().iter().find(|m| m["role"] == "user").unwrap()["start"].as_u64();
    let mut text = String::new();
    let mut on = 0;
    for at in from.unwrap() as usize..ids.len() {
        if mask[at] != on {
            text += if mask[at] == 1 { "[" } else { "]" };
            on = mask[at];
        }
        text += &ids[at];
        text += " ";
    }
    text
}

#[test]
fn masks_follow_the_policy_and_a_refused_row_keeps_its_place() {
    let file = written(&[
        r#"{"id": "a", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "thinking": "y", "content": "z"}]}"#,
        r#"{"messages": [{"role": "wizard", "content": "x"}]}"#,
        r#"{"id": 7, "messages": [{"role": "user", "content": "<|end|>"}], "add_generation_prompt": true}"#,
        "{",
    ]);
    let input = file.path().to_str().unwrap();
    let model = gpt_oss().join("tokenizer");
    let render = |more: &[&str]| {
        let arguments = ["data", "render", "--model", model.to_str().unwrap(), "--input", input, "--json"];
        descant(root(), &[&arguments[..], more].concat())
    };
    let ran = render(&[]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let answers = rows(&ran);
    // user x | assistant analysis y | assistant final z
    let user = "200006 1428 200008 87 200007 200006 173781 ";
    let analysis = "200005 35644 200008 88 200007 ";
    let final_ = "200006 173781 200005 17196 200008 ";
    assert_eq!(bracketed(&answers[0]), format!("{user}[{analysis}{final_}89 200002 "));
    let keys: Vec<&String> = answers[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["id", "text", "ids", "messages", "mask"]);
    let keys: Vec<&String> = answers[0]["messages"][0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["role", "channel", "start", "body", "end"]);
    assert_eq!(answers[1]["id"], 2);
    assert!(answers[1]["error"].as_str().unwrap().starts_with("messages[0].role: `wizard` is not"));
    // Content never becomes a control token, and a row in which nothing is trained is a row anyway.
    let ids: Vec<u64> = answers[2]["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    assert_eq!(ids.iter().filter(|id| **id == 200_007).count(), 2, "the system's and the user's own");
    assert!(answers[2]["mask"].as_array().unwrap().iter().all(|bit| bit == 0));
    assert_eq!(answers[3]["id"], 4);
    for said in ["2 rows refused", "1 row without a trained token under this mask"] {
        assert!(ran.err.contains(said), "{}", ran.err);
    }
    let exact = rows(&render(&["--template-exact"]));
    let ends = exact[2]["ids"].as_array().unwrap().iter().filter(|id| **id == 200_007).count();
    assert_eq!(ends, 3, "the plain behaviour makes a control token of the content");
    let finals = rows(&render(&["--mask", "final_only"]));
    assert_eq!(bracketed(&finals[0]), format!("{user}{analysis}{final_}[89 200002 "));
    let everything = rows(&render(&["--mask", "everything"]));
    assert!(everything[0]["mask"].as_array().unwrap().iter().all(|bit| bit == 1));
    let stopped = render(&["--on-bad-row", "fail"]);
    assert_eq!((stopped.code, stopped.out.lines().count()), (2, 1));
    assert!(stopped.err.contains(":2: messages[0].role"), "{}", stopped.err);
}

#[test]
fn another_template_can_be_given_and_its_checksum_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let template = dir.path().join("short.jinja");
    let text = "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}";
    std::fs::File::create(&template).unwrap().write_all(text.as_bytes()).unwrap();
    let file = written(&[r#"{"messages": [{"role": "user", "content": "x"}]}"#]);
    let arguments = [
        "data",
        "render",
        "--json",
        "--chat-template",
        template.to_str().unwrap(),
        "--input",
        file.path().to_str().unwrap(),
    ];
    let ran = descant(root(), &arguments);
    assert_eq!(rows(&ran)[0]["text"], "<|start|>user<|message|>x<|end|>", "{}", ran.err);
    assert!(ran.err.contains("short.jinja (sha256 "), "{}", ran.err);
}

#[test]
fn the_preview_of_the_fixture_is_readable_without_colour() {
    let ran = descant(root(), &["data", "preview", FIXTURE, "--rows", "2"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    insta::assert_snapshot!(ran.out);
    let said: Vec<&str> = ran.err.lines().collect();
    assert_eq!(said[0], format!("data        {FIXTURE} (messages)"));
    assert!(said[1].starts_with("template    ") && said[1].ends_with("(sha256 a4c9919cbbd4)"), "{}", said[1]);
    let coloured = descant(root(), &["data", "preview", FIXTURE, "--rows", "2", "--color", "always"]);
    assert!(coloured.out.contains("\u{1b}[32m"), "trained tokens are green");
    assert_eq!(anstream::adapter::strip_str(&coloured.out).to_string(), ran.out, "colour adds no word");
    assert!(ran.out.lines().all(|line| line == line.trim_end()), "no line ends in spaces");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    use std::process::{Command, Stdio};
    let mut command = Command::new(env!("CARGO_BIN_EXE_descant"));
    let arguments = ["data", "render", "--json", "--input", "fixtures/tiny-gpt-oss/data/held-out.jsonl"];
    command.args(arguments).current_dir(root()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = [0; 8];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.contains("error")), (Some(0), false), "{said}");
}

#[test]
fn a_preview_tells_of_bad_rows_by_line_and_says_no() {
    let file = written(&[
        r#"{"instruction": "i", "output": "o\u001b[31m"}"#,
        "{",
        r#"{"instruction": "i"}"#,
        r#"{"instruction": "i", "output": "o\u001b[31m"}"#,
    ]);
    let path = file.path().to_str().unwrap();
    let ran = descant(root(), &["data", "preview", path]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("(alpaca)"), "{}", ran.err);
    for said in [
        "left out   1 view with the tokens of an earlier one",
        "rejected   2 rows\n  line 2: not a JSON object: ",
        "\n  line 3: output: missing",
        "o\\u{1b}[31m",
    ] {
        assert!(ran.out.contains(said), "{said}\n{}", ran.out);
    }
    assert!(!ran.out.contains('\u{1b}'));
    let json = descant(root(), &["data", "preview", path, "--json"]);
    let account: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&account["account"]["rejects"]["count"], &account["examples"]), (&json!(2), &json!(1)));
    assert_eq!(account["account"]["rejects"]["first"][0]["row"], 2);
    assert_eq!(account["format"], "alpaca");
    assert!(account["account"]["tokens"]["final"]["trained"].as_u64().unwrap() > 3);
    let strict = descant(root(), &["data", "preview", path, "--on-bad-row", "fail"]);
    assert_eq!((strict.code, strict.out.as_str()), (2, ""));
    assert!(strict.err.contains(":2: not a JSON object"), "{}", strict.err);
    // Nothing is left to train on: that is an answer of a preview, not an error of it.
    let empty = written(&["{", "[]"]);
    let ran = descant(root(), &["data", "preview", empty.path().to_str().unwrap()]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.out.contains("rejected   2 rows"), "{}", ran.out);
}
