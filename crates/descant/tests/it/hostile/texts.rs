//! Defects of what becomes tokens: tokenizer, chat template, rows, sequences to score.

use serde_json::{Value, json};

use super::{Case, Command, Damage, case, odd};

const TOKENIZER: &str = "model/tokenizer.json";
const TEMPLATE: &str = "model/chat_template.jinja";
const ROWS: &str = "data.jsonl";

pub(super) fn tokenizers(good: &[u8]) -> Vec<Case> {
    let given = |bytes: Vec<u8>, words| case(Command::Train, TOKENIZER, bytes, words);
    let changed = |change: fn(&mut Value), words| {
        let mut file = serde_json::from_slice(good).unwrap();
        change(&mut file);
        given(file.to_string().into_bytes(), words)
    };
    vec![
        given(Vec::new(), "tokenizer.json: not a usable tokenizer: EOF"),
        given(b"{}".to_vec(), "missing field `model`"),
        changed(|f| f["model"]["type"] = json!("WordLevel"), "model: WordLevel"),
        changed(|f| f["model"]["dropout"] = json!(0.1), "model.dropout is 0.1"),
        changed(|f| f["normalizer"] = json!({"type": "Precompiled"}), "normalizer: Precompiled"),
        changed(|f| f["added_tokens"] = json!([]), "special token `<|"),
        changed(|f| f["added_tokens"][3]["lstrip"] = json!(true), "has `lstrip` set"),
        changed(|f| f["added_tokens"][0]["id"] = json!(7), "has id 7 in the file"),
        changed(|f| f["model"]["merges"] = json!([["no such", "token"]]), "no such"),
        odd(Command::Train, TOKENIZER, Damage::Gone, "No such file"),
        #[cfg(unix)]
        odd(Command::Train, TOKENIZER, Damage::Pipe, "not a regular file"),
    ]
}

pub(super) fn templates() -> Vec<Case> {
    let given = |bytes: &[u8], words| case(Command::Train, TEMPLATE, bytes, words);
    vec![
        given(b"{% for %}", "chat_template.jinja: syntax error"),
        given(&[0xff, 0xfe], "chat_template.jinja: invalid utf-8"),
        given(b"{% include '/etc/passwd' %}", "/etc/passwd").at("chat_template:1"),
        given(
            b"{% for a in range(9999) %}{% for b in range(9999) %}{% set c = a * b %}{% endfor %}{% endfor %}",
            "out of fuel",
        )
        .at("chat_template:1"),
        given(b"{{ raise_exception('no thanks') }}", "no thanks").at("chat_template:1"),
        given(b"plain text without control tokens", "not valid Harmony").at("data.jsonl:1"),
        given(&vec![b'x'; (1 << 20) + 1], "larger than the limit"),
    ]
}

pub(super) fn rows() -> Vec<Case> {
    let given = |bytes: Vec<u8>, words| case(Command::Train, ROWS, bytes, words);
    let second = |row: &str, words| given([super::ROWS, row, "\n"].concat().into_bytes(), words);
    let message = |message: Value, words| second(&json!({"messages": [message]}).to_string(), words);
    let gzip = |bytes: &[u8]| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut packed, bytes).unwrap();
        packed.finish().unwrap()
    };
    vec![
        given(Vec::new(), "an empty file"),
        second("{", "data.jsonl:2: not a JSON object: EOF"),
        second("[1]", "data.jsonl:2: not a JSON object: the line is a list"),
        second(
            r#"{"messages": [], "messages": []}"#,
            "data.jsonl:2: not a JSON object: key `messages` occurs twice",
        ),
        second(r#"{"messages": []}"#, "data.jsonl:2: messages: "),
        second(r#"{"messages": 7}"#, "data.jsonl:2: messages: "),
        second(r#"{"other": 7}"#, "data.jsonl:2: "),
        message(json!({"role": "wizard", "content": "x"}), "data.jsonl:2: messages[0].role: "),
        message(json!({"role": "user"}), "data.jsonl:2: messages[0].content: "),
        message(json!({"role": "user", "content": 7}), "data.jsonl:2: messages[0].content: "),
        message(
            json!({"role": "user", "content": "x"}),
            "data.jsonl:2: the conversation has no assistant message",
        ),
        second("{\"a\":\"\u{0}\"}", "data.jsonl:2: not a JSON object: control character"),
        given(
            b"{\"a\":\"\xff\"}\n".to_vec(),
            "data.jsonl:1: not a JSON object: no UTF-8 text, from byte 7 on",
        ),
        given(b"{\"a\":".repeat(1 << 12), "data.jsonl:1: not a JSON object: recursion limit"),
        given(
            [super::ROWS.as_bytes(), &b"x".repeat((16 << 20) + 10)].concat(),
            "data.jsonl:2: longer than the limit",
        ),
        given(vec![0x1f, 0x8b, 8, 0, 0], "data.jsonl: "),
        given(gzip(&vec![b'\n'; 64 << 20]), "unpacks to more than 100 times its size"),
        given(b"\x28\xb5\x2f\xfd\xff\xff\xff\xff\xff\xff".to_vec(), "data.jsonl: "),
        given(b"PAR1PAR1".to_vec(), "data.jsonl: "),
        odd(
            Command::Train,
            ROWS,
            Damage::Folder,
            "data.jsonl: a folder without a file of rows (parquet, JSON lines or JSON): it is empty",
        ),
    ]
}

pub(super) fn sequences() -> Vec<Case> {
    let given =
        |text: &str, words| case(Command::Score, "ids.jsonl", format!("{{\"ids\": [1]}}\n{text}\n"), words);
    vec![
        given("{", "ids.jsonl, line 2"),
        given("{}", "missing field `ids`"),
        given(r#"{"ids": []}"#, "sequence 0 of the batch is empty"),
        given(r#"{"ids": [1, -2]}"#, "invalid value: integer `-2`"),
        given(r#"{"ids": [1, 4096]}"#, "token 1 is 4096, the vocabulary has 1536 rows"),
        given(r#"{"ids": [1, 2], "labels": [1]}"#, "2 ids but 1 labels"),
    ]
}
