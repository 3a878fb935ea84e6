//! What becomes tokens: tokenizer, chat template, rows of every kind, and ids that somebody else made.

use std::io::Write as _;

use descant_harmony::parse::{parse_conversation, parse_reply};
use descant_harmony::read::{Body, OnBadRow, ReadOptions, Row, read};
use descant_harmony::{ChatTemplate, Conversation, RenderOptions, Renderer, TextEncoder, Tokenizer};
use descant_testkit::door::{Limits, check};
use serde_json::{Value, json};

use crate::{fixtures, put, turn};

/// The tiny model's `tokenizer.json` with bytes and control tokens only: small, so that damage meets its structure.
fn small_tokenizer() -> Vec<u8> {
    let path = fixtures().join("harmony/tiny/tokenizer.json");
    let mut file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let vocab = file["model"]["vocab"].as_object().unwrap();
    let bytes: serde_json::Map<_, _> = vocab
        .iter()
        .filter(|(token, _)| token.chars().count() == 1)
        .map(|(t, id)| (t.clone(), id.clone()))
        .collect();
    let merges: Vec<Value> = ["an", "st", "in"].iter().map(|two| json!([two[..1], two[1..]])).collect();
    let mut vocab: serde_json::Map<String, Value> =
        bytes.keys().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    for two in ["an", "st", "in"] {
        vocab.insert(two.to_owned(), vocab.len().into());
    }
    let first = vocab.len();
    file["model"]["vocab"] = vocab.into();
    file["model"]["merges"] = merges.into();
    for (at, token) in file["added_tokens"].as_array_mut().unwrap().iter_mut().enumerate() {
        token["id"] = (first + at).into();
    }
    file.to_string().into_bytes()
}

fn renderer() -> Renderer {
    Renderer::load(&fixtures().join("harmony/tiny"), None).unwrap()
}

/// What every row of a file goes through on its way into a run.
fn render(renderer: &Renderer, row: &Row) {
    match &row.body {
        Body::Conversation(conversation) => drop(renderer.render(conversation, &RenderOptions::default())),
        Body::Text(text) => drop(renderer.rendered_text(text)),
    }
}

#[test]
fn tokenizers() {
    let _turn = turn();
    let text = "Some text, 123 <|end|> naïve\r\n  ";
    check("tokenizer.json", &small_tokenizer(), Limits::default(), |bytes| {
        Tokenizer::from_bytes(bytes, "tokenizer.json").is_ok_and(|tokenizer| {
            if let Ok(ids) = tokenizer.encode_text(text) {
                let _ = tokenizer.decode(&ids);
            }
            let _ = tokenizer.decode(&[0, 7, 300, u32::MAX]);
            true
        })
    });
}

#[test]
fn templates() {
    let _turn = turn();
    let template = std::fs::read(fixtures().join("tiny-gpt-oss/chat_template.jinja")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.jinja");
    let conversation = conversation();
    let limits = Limits::default();
    check("chat_template.jinja", &template, limits, |bytes| {
        put(&path, bytes);
        let Ok(template) = ChatTemplate::from_file(&path) else { return false };
        let input = descant_harmony::TemplateInput::from_row(&conversation).unwrap();
        template.render(&input, descant_harmony::PINNED_DATE).is_ok()
    });
}

/// A row with every kind of message.
fn conversation() -> serde_json::Map<String, Value> {
    let row = json!({"messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How warm is it?"},
        {"role": "assistant", "thinking": "A tool knows.", "tool_calls": [
            {"type": "function", "function": {"name": "weather", "arguments": {"place": "Ulm", "days": 2}}}]},
        {"role": "tool", "name": "weather", "content": "{\"celsius\": 21}"},
        {"role": "assistant", "thinking": "It said 21.", "content": "21 degrees."}],
        "tools": [{"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters":
            {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}}}}],
        "reasoning_effort": "low"});
    row.as_object().unwrap().clone()
}

#[test]
fn rows_of_text() {
    let _turn = turn();
    let renderer = renderer();
    let (mut lines, dir) = (Vec::new(), tempfile::tempdir().unwrap());
    let short =
        json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
    for row in [Value::Object(conversation()), short] {
        lines.extend(format!("{row}\n").into_bytes());
    }
    let turns = json!({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]});
    let turns = format!("{turns}\n").repeat(3).into_bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&lines).unwrap();
    let gzip = gzip.finish().unwrap();
    let path = dir.path().join("damaged.jsonl");
    for (name, good) in [("rows in JSONL", &lines), ("rows in gzip", &gzip), ("rows of ShareGPT", &turns)] {
        for on_bad_row in [OnBadRow::Fail, OnBadRow::Skip] {
            let options = ReadOptions { on_bad_row, ..ReadOptions::default() };
            check(&format!("{name}, {on_bad_row:?}"), good, Limits::default(), |bytes| {
                put(&path, bytes);
                let Ok(set) = read(&path, &options) else { return false };
                set.rows.iter().for_each(|row| render(&renderer, row));
                set.rejects.count == 0
            });
        }
    }
}

#[test]
fn rows_of_parquet() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.parquet");
    let good = std::fs::read(fixtures().join("harmony/data/multilingual-thinking-24.parquet")).unwrap();
    check("rows in parquet", &good, Limits::default(), |bytes| {
        put(&path, bytes);
        read(&path, &ReadOptions::default()).is_ok()
    });
}

#[test]
fn ids_of_conversations() {
    let _turn = turn();
    let renderer = renderer();
    let row = Conversation::from_json(&conversation()).unwrap();
    let rendered = renderer.render(&row, &RenderOptions::default()).unwrap();
    let bytes: Vec<u8> = rendered.ids.iter().flat_map(|id| (*id as u16).to_le_bytes()).collect();
    check("ids", &bytes, Limits::default(), |bytes| {
        let ids: Vec<u32> =
            bytes.as_chunks().0.iter().map(|two| u32::from(u16::from_le_bytes(*two))).collect();
        let _ = parse_reply(renderer.tokenizer(), &ids);
        let _ = renderer.tokenizer().decode(&ids);
        parse_conversation(renderer.tokenizer(), &ids).is_ok()
    });
    check("rendered text", rendered.text.as_bytes(), Limits::default(), |bytes| {
        renderer.rendered_text(&String::from_utf8_lossy(bytes)).is_ok()
    });
}
