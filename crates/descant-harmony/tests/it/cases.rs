//! Files of strangers, as people really have them: what is trained of each, or what is said of it.
//!
//! `fixtures/cases` has them by what became of them before they were looked at: misread in silence, refused though
//! other tools read them, refused without help. After a wanted change:
//! `DESCANT_UPDATE=1 cargo test -p descant-harmony --test it cases`, and read the difference of `expected.txt`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use descant_harmony::prepare::{PrepareOptions, Prepared, prepare};
use descant_harmony::read::{ReadOptions, read};
use descant_harmony::{MaskPolicy, TextEncoder as _};

use crate::data_page::shown_file;
use crate::support::tiny;

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/cases")
}

fn prepared(path: &Path) -> descant_harmony::Result<Prepared> {
    let set = read(path, &ReadOptions::default())?;
    prepare(tiny(), &set, &PrepareOptions::default())
}

/// What is trained of a file, and the keys that are not used.
fn shown(path: &Path) -> String {
    let mut text = shown_file(path, MaskPolicy::Assistant);
    for key in prepared(path).iter().flat_map(|prepared| prepared.account.ignored.iter()) {
        let _ = write!(text, "\n(`{}` in {} {})", key.key, key.count, key.place.plural());
    }
    text
}

#[test]
fn every_file_of_a_stranger_becomes_what_it_says() {
    let mut text = String::new();
    for folder in ["silent", "refused", "unclear", "beyond"] {
        let entries = cases().join(folder).read_dir().unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for path in names {
            // The whole clone is a data set of its own, read elsewhere.
            let shown = if path.ends_with("d28b_repo_clone") {
                format!("{} examples", prepared(&path).unwrap().examples.len())
            } else {
                shown(&path)
            };
            let _ = write!(text, "=== {folder}/{}\n{shown}\n\n", path.file_name().unwrap().display());
        }
    }
    let expected = cases().join("expected.txt");
    if std::env::var_os("DESCANT_UPDATE").is_some() {
        std::fs::File::create(&expected).unwrap().write_all(text.as_bytes()).unwrap();
    }
    let expected = std::fs::read_to_string(expected).unwrap();
    for (found, wanted) in text.split("=== ").zip(expected.split("=== ")) {
        assert_eq!(found, wanted);
    }
    assert_eq!(text.len(), expected.len());
}

#[test]
fn identity_and_date_of_a_row_reach_the_system_message() {
    let system = |name: &str| {
        let example = prepared(&cases().join(name)).unwrap().examples.remove(0);
        tiny().tokenizer().decode(&example.ids).unwrap()
    };
    let text = system("silent/d10_chat_template_kwargs.jsonl");
    assert!(text.contains("<|message|>You are Tiny.\n") && text.contains("Reasoning: high"), "{text}");
    assert!(system("refused/p05_date32.parquet").contains("Current date: 2025-01-02"));
}

/// Rows beyond the files: the same meaning in other spellings.
#[test]
fn a_spelling_that_is_taken_in_one_form_is_taken_in_all() {
    let plain = r#"{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Yo","thinking":"Mh"}]}"#;
    let called = r#"{"tools":[{"type":"function","function":{"name":"f","description":"F","parameters":{"type":"object","properties":{"a":{"type":"integer"}}}}}],
        "messages":[{"role":"user","content":"Hi"},{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{"a":3}}}]},
        {"role":"tool","content":"7"},{"role":"assistant","content":"Yo"}]}"#;
    let weighed = r#"{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"No","weight":0},
        {"role":"user","content":"Hm"},{"role":"assistant","content":"Yo"}]}"#;
    let schema = r#"{"name":"f","description":"F","parameters":{"type":"object","properties":{"a":{"type":"integer"}}}}"#;
    let same: [(&str, Vec<String>); 3] = [
        (
            plain,
            [
                r#"{"messages":[{"from":"human","value":"Hi"},{"from":"gpt","value":"Yo","reasoning":"Mh"}]}"#,
                r#"{"conversations":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Yo","reasoning_content":"Mh"}]}"#,
                r#"{"conversation":[{"role":"user","content":[{"type":"text","text":"Hi"}]},{"role":"model","content":[{"type":"thinking","thinking":"Mh"},{"type":"text","text":"Yo"}]}]}"#,
                r#"{"messages":"[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Yo\",\"thinking\":\"Mh\"}]"}"#,
                r#"{"instruction":"Hi","output":"Yo","reasoning":"Mh"}"#,
                r#"{"prompt":"Hi","completion":"Yo","reasoning_content":"Mh"}"#,
                r#"{"prompt":"Hi","completion":[{"role":"assistant","content":"Yo","thinking":"Mh"}]}"#,
                r#"{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","channel":"analysis","content":"Mh"},{"role":"assistant","content":"Yo"}]}"#,
            ]
            .map(str::to_owned)
            .to_vec(),
        ),
        (
            called,
            vec![
                format!(r#"{{"functions":[{schema}],"messages":[{{"role":"user","content":"Hi"}},{{"role":"assistant","content":"","function_call":{{"name":"f","arguments":"{{\"a\": 3}}"}}}},{{"role":"function","name":"f","content":"7"}},{{"role":"assistant","content":"Yo"}}]}}"#),
                format!(r#"{{"tools":[{schema}],"conversations":[{{"from":"human","value":"Hi"}},{{"from":"function_call","value":{{"name":"f","arguments":{{"a":3}}}}}},{{"from":"observation","value":[{{"type":"text","text":"7"}}]}},{{"from":"gpt","value":"Yo"}}]}}"#),
                format!(r#"{{"tools":{},"messages":[{{"role":"user","content":"Hi"}},{{"role":"assistant","channel":"commentary","recipient":"functions.f","content":"{{\"a\": 3}}"}},{{"role":"tool","channel":"commentary","content":"7"}},{{"role":"assistant","channel":"final","content":"Yo"}}]}}"#, serde_json::Value::from(format!("[{schema}]"))),
                format!(r#"{{"tools":[{schema}],"prompt":[{{"role":"user","content":"Hi"}}],"completion":[{{"role":"assistant","tool_calls":"[{{\"name\":\"f\",\"arguments\":\"{{\\\"a\\\": 3}}\"}}]"}},{{"role":"tool","content":"7"}},{{"role":"assistant","content":"Yo"}}]}}"#),
            ],
        ),
        (
            weighed,
            vec![
                weighed.replace("\"weight\":0", "\"train\":false"),
                weighed.replace("\"weight\":0", "\"loss\":false"),
                weighed.replace("\"weight\":0", "\"loss\":0.0,\"train\":false"),
                r#"{"prompt":[{"from":"human","value":"Hi"},{"from":"gpt","value":"No"},{"from":"human","value":"Hm"}],"completion":"Yo"}"#.to_owned(),
            ],
        ),
    ];
    let examples = |row: &str| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(row.replace('\n', " ").as_bytes()).unwrap();
        let prepared = prepared(file.path()).unwrap_or_else(|error| panic!("{row}\n{error}"));
        assert!(prepared.account.ignored.is_empty(), "{row}\n{:?}", prepared.account.ignored);
        prepared.examples.into_iter().map(|example| (example.ids, example.mask)).collect::<Vec<_>>()
    };
    for (row, others) in same {
        let wanted = examples(row);
        for other in others {
            assert_eq!(examples(&other), wanted, "{other}");
        }
    }
}

#[test]
fn weights_are_honoured_as_weights_and_reasoning_has_its_own() {
    let row = r#"{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","channel":"analysis","content":"Mh","weight":0},
        {"role":"assistant","channel":"final","content":"Yo","weight":0.25}]}"#;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(row.replace('\n', " ").as_bytes()).unwrap();
    let example = prepared(file.path()).unwrap().examples.remove(0);
    let mut weights: Vec<f32> = example.mask.weights.clone();
    weights.dedup();
    assert_eq!(weights, [0.0, 0.25]);
    assert_eq!(example.first_reasoning, None);
    assert_eq!(tiny().tokenizer().decode(&example.ids[example.ids.len() - 1..]).unwrap(), "<|return|>");
}

#[test]
fn what_contradicts_itself_or_cannot_be_rendered_is_refused_by_name() {
    let of = |assistant: &str| format!(r#"{{"messages":[{{"role":"user","content":"Hi"}},{assistant}]}}"#);
    let beside =
        |keys: &str| of(r#"{"role":"assistant","content":"Yo"}"#).replacen('{', &format!("{{{keys},"), 1);
    for (row, reason) in [
        (
            of(r#"{"role":"assistant","content":"Yo","weight":-1}"#),
            "messages[1].weight: -1 is not true, false or",
        ),
        (of(r#"{"role":"assistant","content":"Yo","weight":"1"}"#), "messages[1].weight: \"1\" is not true"),
        (
            of(r#"{"role":"assistant","content":"Yo","weight":0,"train":true}"#),
            "messages[1].train: differs from",
        ),
        (
            of(r#"{"role":"assistant","content":"Yo","weight":0}"#),
            "messages: every assistant message has weight 0",
        ),
        (
            of(r#"{"role":"assistant","content":"Yo","channel":"analysis"}"#),
            "messages[1]: an analysis that neither",
        ),
        (
            of(r#"{"role":"assistant","content":"Yo","channel":"commentary"}"#),
            "messages[1].channel: a remark on",
        ),
        (
            of(r#"{"role":"assistant","content":"Yo","channel":"thoughts"}"#),
            "messages[1].channel: `thoughts` is not",
        ),
        (
            of(r#"{"role":"assistant","content":"Yo","images":["x.png"]}"#),
            "messages[1].images: gpt-oss reads and",
        ),
        (
            of(r#"{"role":"assistant","refusal":"No","content":"Yo"}"#),
            "messages[1].refusal: refusals are not supported",
        ),
        (beside(r#""reasoning_effort":"HIGH""#), "reasoning_effort: `HIGH` is not low, medium or high"),
        (beside(r#""template_kwargs":{"reasoning_effort":"max"}"#), "reasoning_effort: `max` is not low"),
        (
            beside(r#""reasoning_effort":"low","chat_template_kwargs":{"reasoning_effort":"high"}"#),
            "reasoning_effort: the row says",
        ),
        (beside(r#""chat_template_kwargs":{"messages":[]}"#), "chat_template_kwargs.messages: is given by"),
        (beside(r#""tools":[{"type":"web_search"}]"#), "tools[0].type: `web_search` is not a function"),
        (beside(r#""tools":[{"description":"x"}]"#), "tools[0].name: missing"),
        (beside(r#""images":["x.png"]"#), "images: gpt-oss reads and"),
        (r#"{"text":NaN}"#.to_owned(), "text: NaN, which no conversation can hold"),
        (
            r#"{"instruction":"a","output":"b","history":[["x"]]}"#.to_owned(),
            "history[0]: expected a list of two",
        ),
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(row.as_bytes()).unwrap();
        let error = prepared(file.path()).unwrap_err().to_string();
        let place = format!("{}:1: ", file.path().display());
        assert!(error.strip_prefix(&place).is_some_and(|rest| rest.starts_with(reason)), "{row}\n{error}");
    }
}

#[test]
fn keys_that_are_not_used_are_counted() {
    let row = r#"{"id":1,"score":2,"tools":[{"name":"f","description":"F","returns":"x"}],"chat_template_kwargs":{"enable_thinking":true},
        "messages":[{"role":"user","content":"Hi","score":1,"name":"ada","weight":1},
        {"role":"assistant","score":null,"tool_calls":[{"id":"1","function":{"name":"f","arguments":{},"why":"x"}}]}]}"#;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all((row.replace('\n', " ") + "\n").repeat(2).as_bytes()).unwrap();
    let account = prepared(file.path()).unwrap().account;
    let seen: Vec<String> = account
        .ignored
        .iter()
        .map(|key| format!("{} {} {}", key.key, key.count, key.place.plural()))
        .collect();
    assert_eq!(
        seen,
        [
            "score 2 rows",
            "enable_thinking 2 template_kwargs",
            "returns 2 tools",
            "score 2 messages",
            "weight of user 2 messages",
            "why 2 tool calls"
        ]
    );
}

#[test]
fn a_template_with_generation_tags_is_the_template_without_them() {
    let plain = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/gpt-oss-chat_template.jinja"),
    );
    let plain = plain.unwrap();
    let answer =
        "{{- \"<|start|>assistant<|channel|>final<|message|>\" + message.content + \"<|return|>\" }}";
    let tagged = plain.replace(answer, &format!("{{% generation %}}{answer}{{% endgeneration %}}"));
    assert_ne!(tagged, plain);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(tagged.as_bytes()).unwrap();
    let template = descant_harmony::ChatTemplate::from_file(file.path()).unwrap();
    let input = descant_harmony::TemplateInput {
        messages: serde_json::json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]),
        ..Default::default()
    };
    let text = template.render(&input, descant_harmony::PINNED_DATE).unwrap();
    assert_eq!(text, tiny().template().render(&input, descant_harmony::PINNED_DATE).unwrap());
}
