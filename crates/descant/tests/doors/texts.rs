//! What becomes tokens: tokenizer, chat template, rows of every kind, and ids that somebody else made.

use std::io::Write as _;

use descant_harmony::parse::{parse_conversation, parse_reply};
use descant_harmony::prepare::{PrepareOptions, each_example};
use descant_harmony::read::{Body, OnBadRow, ReadOptions, Row, read};
use descant_harmony::store::{Store, Writer};
use descant_harmony::{ChatTemplate, Conversation, RenderOptions, Renderer, TextEncoder, Tokenizer};
use descant_testkit::door::{Limits, check};
use descant_testkit::texts::{row, small_tokenizer};
use serde_json::{Value, json};

use crate::{fixtures, put, turn};

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
    let good = row();
    let limits = Limits::default();
    check("chat_template.jinja", &template, limits, |bytes| {
        put(&path, bytes);
        let Ok(template) = ChatTemplate::from_file(&path) else { return false };
        let input = descant_harmony::TemplateInput::from_row(&good).unwrap();
        template.render(&input, descant_harmony::PINNED_DATE).is_ok()
    });
}

#[test]
fn rows_of_text() {
    let _turn = turn();
    let renderer = renderer();
    let (mut lines, dir) = (Vec::new(), tempfile::tempdir().unwrap());
    let short =
        json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
    for row in [Value::Object(row()), short] {
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
fn rows_of_arrays() {
    let _turn = turn();
    let renderer = renderer();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.json");
    let short =
        json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
    let rows = Value::Array(vec![Value::Object(row()), short]);
    let pretty = serde_json::to_vec_pretty(&rows).unwrap();
    let wrapped = json!({"version": {"n": [1, 2]}, "data": rows, "more": "x"}).to_string().into_bytes();
    for (name, good) in [("rows in an array", &pretty), ("rows in a wrapped array", &wrapped)] {
        let options = ReadOptions { on_bad_row: OnBadRow::Skip, ..ReadOptions::default() };
        check(name, good, Limits::default(), |bytes| {
            put(&path, bytes);
            let Ok(set) = read(&path, &options) else { return false };
            set.rows.iter().for_each(|row| render(&renderer, row));
            set.rejects.count == 0
        });
    }
}

/// Prepared examples in a file: any damage is found when it is opened or verified.
#[test]
fn prepared_examples() {
    let _turn = turn();
    let renderer = renderer();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    put(&path, format!("{}\n", Value::Object(row())).repeat(2).as_bytes());
    let mut writer = Writer::new(Vec::new()).unwrap();
    let (read, options) = (ReadOptions::default(), PrepareOptions::default());
    let survey = each_example(&renderer, &path, &read, &options, &mut |_| {}, &mut |example| {
        writer.push(&example).unwrap();
        Ok(())
    });
    let good = writer.finish(&survey.unwrap(), "key").unwrap();
    check("prepared examples", &good, Limits::default(), |bytes| {
        let Ok(store) = Store::from_bytes(bytes.to_vec(), "key") else { return false };
        (0..store.len()).for_each(|at| drop(store.get(at)));
        let whole = store.verify().is_ok();
        assert!(!whole || bytes == good, "damage went unnoticed");
        whole
    });
    // Past the checksums: any bytes as the one record of a file that is otherwise good.
    let store = Store::from_bytes(good, "key").unwrap();
    let mut writer = Writer::new(Vec::new()).unwrap();
    writer.push(&store.get(0).unwrap()).unwrap();
    let one = writer.finish(store.survey(), "key").unwrap();
    let record = descant_testkit::store::record_of(&one).to_vec();
    check("a prepared example", &record, Limits::default(), |bytes| {
        let store = Store::from_bytes(descant_testkit::store::with_record(&one, bytes), "key").unwrap();
        store.verify().unwrap();
        store.get(0).is_ok()
    });
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
    let conversation = Conversation::from_json(&row()).unwrap();
    let rendered = renderer.render(&conversation, &RenderOptions::default()).unwrap();
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
