//! What becomes tokens.

use std::io::Write as _;

use descant_harmony::parse::{parse_conversation, parse_reply};
use descant_harmony::prepare::{PrepareOptions, each_example};
use descant_harmony::read::{Body, OnBadRow, ReadOptions, read};
use descant_harmony::store::{Store, Writer};
use descant_harmony::{
    ChatTemplate, Conversation, LossWeights, MaskPolicy, Masker, Message, PINNED_DATE, RenderOptions,
    Renderer, Role, TemplateInput, TextEncoder as _, Tokenizer,
};
use descant_testkit::store::{record_of, with_record};
use descant_testkit::texts::{row, small_tokenizer};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use serde_json::{Value, json};

use super::{Opened, fixture, fixtures, folder, put};

fn renderer() -> Renderer {
    Renderer::load(&fixtures().join("harmony/tiny"), None).expect("a good tokenizer")
}

pub(super) fn tokenizer() -> Opened {
    let door = |bytes: &[u8]| {
        let Ok(tokenizer) = Tokenizer::from_bytes(bytes, "tokenizer.json") else { return };
        if let Ok(ids) = tokenizer.encode_text("Some text, 123 <|end|> naïve\r\n  ") {
            assert!(ids.iter().all(|id| !tokenizer.control().is_special(*id)), "content became control");
            let _ = tokenizer.decode(&ids);
        }
        let _ = tokenizer.decode(&[0, 7, 300, u32::MAX]);
    };
    (Box::new(door), vec![small_tokenizer()])
}

pub(super) fn template() -> Opened {
    let path = folder().join("chat_template.jinja");
    let input = TemplateInput::from_row(&row()).expect("a good row");
    let door = move |bytes: &[u8]| {
        put(&path, bytes);
        if let Ok(template) = ChatTemplate::from_file(&path) {
            let _ = template.render(&input, PINNED_DATE);
        }
    };
    let seeds = [
        "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content|tojson }}<|end|>{% endfor %}",
        "{% macro f(x) %}{% if x is string %}{{ x[1:3] }}{% else %}{{ x|length }}{% endif %}{% endmacro %}{{ f(messages) }}",
        "{% set ns = namespace(a=1) %}{{ strftime_now('%Y') }}{{ raise_exception('x') }}",
    ];
    let mut seeds: Vec<Vec<u8>> = seeds.map(|seed| seed.as_bytes().to_vec()).to_vec();
    seeds.push(fixture("tiny-gpt-oss/chat_template.jinja"));
    (Box::new(door), seeds)
}

pub(super) fn rows() -> Opened {
    let (path, renderer) = (folder().join("data.jsonl"), renderer());
    let door = move |bytes: &[u8]| {
        put(&path, bytes);
        let options = ReadOptions { on_bad_row: OnBadRow::Skip, format: None };
        let Ok(set) = read(&path, &options) else { return };
        for row in set.rows.iter().take(4) {
            match &row.body {
                Body::Conversation(conversation) => {
                    drop(renderer.render(conversation, &RenderOptions::default()))
                }
                Body::Text(text) => drop(renderer.rendered_text(text)),
            }
        }
    };
    let line = Value::Object(row()).to_string() + "\n";
    let turns = "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", \"value\": \"b\"}]}\n";
    let pair =
        "\u{feff}{\"instruction\": \"a\", \"input\": \"b\", \"output\": \"c\"}\r\n\r\n{\"text\": \"x\"}";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(line.as_bytes()).expect("into memory");
    let gzip = gzip.finish().expect("into memory");
    (Box::new(door), vec![line.into_bytes(), turns.into(), pair.into(), gzip])
}

pub(super) fn array() -> Opened {
    let (path, renderer) = (folder().join("data.json"), renderer());
    let door = move |bytes: &[u8]| {
        put(&path, bytes);
        let options = ReadOptions { on_bad_row: OnBadRow::Skip, format: None };
        let Ok(set) = read(&path, &options) else { return };
        for row in set.rows.iter().take(4) {
            if let Body::Conversation(conversation) = &row.body {
                drop(renderer.render(conversation, &RenderOptions::default()));
            }
        }
    };
    let short =
        json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
    let rows = Value::Array(vec![Value::Object(row()), short]);
    let pretty = serde_json::to_vec_pretty(&rows).expect("JSON");
    let wrapped = json!({"version": {"n": [1, 2]}, "data": rows, "more": "x"}).to_string().into_bytes();
    (Box::new(door), vec![pretty, wrapped, b"[]".to_vec(), b"{\"a\": 1}\n{\n\"a\": [2]}".to_vec()])
}

pub(super) fn prepared() -> Opened {
    let path = folder().join("rows.jsonl");
    put(&path, format!("{}\n", Value::Object(row())).as_bytes());
    let mut example = None;
    let (read, options) = (ReadOptions::default(), PrepareOptions::default());
    let survey = each_example(&renderer(), &path, &read, &options, &mut |_| {}, &mut |made| {
        example.get_or_insert(made);
        Ok(())
    });
    let mut writer = Writer::new(Vec::new()).expect("into memory");
    writer.push(&example.expect("a good row")).expect("into memory");
    let file = writer.finish(&survey.expect("a good row"), "").expect("into memory");
    let seed = record_of(&file).to_vec();
    let door = move |bytes: &[u8]| {
        drop(Store::from_bytes(bytes.to_vec(), "").map(|store| store.verify()));
        let store = Store::from_bytes(with_record(&file, bytes), "").expect("its checksums fit");
        let Ok(example) = store.get(0) else { return };
        assert_eq!(example.ids.len(), example.mask.weights.len());
        assert_eq!(example.ids.len(), example.mask.classes.len());
    };
    (Box::new(door), vec![seed])
}

pub(super) fn parquet() -> Opened {
    let path = folder().join("data.parquet");
    let door = move |bytes: &[u8]| {
        put(&path, bytes);
        let _ = read(&path, &ReadOptions::default());
    };
    (Box::new(door), vec![fixture("harmony/data/multilingual-thinking-24.parquet")])
}

/// A conversation from choices; its texts are whatever bytes are left, control strings among them.
fn built(choice: &mut Unstructured<'_>) -> Result<Conversation> {
    const WORDS: [&str; 8] = [
        "<|start|>",
        "<|end|>",
        "assistant",
        "<|channel|>final<|message|>",
        "<|return|>",
        "\u{fdd0}",
        " to=f",
        "<|call|>",
    ];
    let mut messages = Vec::new();
    for _ in 0..choice.int_in_range(1..=6)? {
        let mut text = String::new();
        for _ in 0..choice.int_in_range(0..=4)? {
            text += if choice.ratio(1, 2)? { choice.choose(&WORDS)? } else { choice.arbitrary()? };
        }
        messages.push(match choice.int_in_range(0..=6)? {
            0 => Message::text(Role::System, text),
            1 => Message::text(Role::Developer, text),
            2 => Message::text(Role::User, text),
            3 => Message::assistant(Some(choice.arbitrary()?), text),
            4 => Message::call(None, "weather", json!({"text": text})),
            5 => Message::tool(json!({"said": text})),
            _ => Message::assistant(None, text),
        });
    }
    Ok(Conversation::new(messages))
}

pub(super) fn conversation() -> Opened {
    let renderer = renderer();
    let masker = Masker::new(renderer.tokenizer(), MaskPolicy::Assistant, LossWeights::default())
        .expect("good weights");
    let door = move |bytes: &[u8]| {
        let Ok(conversation) = built(&mut Unstructured::new(bytes)) else { return };
        let Ok(rendered) = renderer.render(&conversation, &RenderOptions::default()) else { return };
        let control = renderer.tokenizer().control();
        // Its own structure is whole, whatever the texts say.
        let parsed =
            parse_conversation(renderer.tokenizer(), &rendered.ids).expect("what is rendered is Harmony");
        assert_eq!(parsed.messages.len(), rendered.messages.len());
        for message in &rendered.messages {
            assert!(
                rendered.ids[message.content()].iter().all(|id| !control.is_special(*id)),
                "content became control"
            );
        }
        if let Ok(mask) = masker.mask(&rendered, 0) {
            assert_eq!(mask.weights.len(), rendered.ids.len());
        }
    };
    (
        Box::new(door),
        vec![vec![0x55; 64], (0..=255).collect(), b"some words that are long enough to choose".to_vec()],
    )
}

pub(super) fn ids() -> Opened {
    let renderer = renderer();
    let good =
        renderer.render(&Conversation::from_json(&row()).expect("a good row"), &RenderOptions::default());
    let seed = good.expect("a good row").ids.iter().flat_map(|id| (*id as u16).to_le_bytes()).collect();
    let door = move |bytes: &[u8]| {
        let ids: Vec<u32> =
            bytes.as_chunks().0.iter().map(|two| u32::from(u16::from_le_bytes(*two))).collect();
        let tokenizer = renderer.tokenizer();
        let _ = tokenizer.decode(&ids);
        for parsed in
            [parse_conversation(tokenizer, &ids), parse_reply(tokenizer, &ids)].into_iter().flatten()
        {
            let spans = parsed.messages.iter();
            assert!(spans.clone().all(|m| m.start < m.body && m.body < m.end && m.end <= ids.len()));
            assert!(spans.clone().zip(spans.skip(1)).all(|(a, b)| a.end == b.start));
        }
    };
    (Box::new(door), vec![seed])
}
