//! Readers: the same rows from every form, and what is said about bad ones.

use crate::support::{fixtures, tiny};
use descant_harmony::prepare::{PrepareOptions, prepare};
use descant_harmony::read::{Body, DataSet, Format, OnBadRow, ReadOptions, Row, read as read_with};
use descant_harmony::{Conversation, Error, RenderOptions, Role};

fn read(path: &std::path::Path, on_bad_row: OnBadRow) -> Result<DataSet, Error> {
    read_with(path, &ReadOptions { on_bad_row, format: None })
}

fn conversation(row: &Row) -> &Conversation {
    row.conversation().unwrap()
}

fn written(text: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, text.as_ref()).unwrap();
    file
}

fn skip(text: impl AsRef<[u8]>) -> DataSet {
    read(written(text).path(), OnBadRow::Skip).unwrap()
}

#[test]
fn parquet_and_json_lines_give_the_same_rows() {
    let lines = read(&fixtures().join("data/multilingual-thinking-24.jsonl"), OnBadRow::Fail).unwrap();
    let parquet = read(&fixtures().join("data/multilingual-thinking-24.parquet"), OnBadRow::Fail).unwrap();
    assert_eq!(lines.rows.len(), 24);
    assert_eq!(lines.rows, parquet.rows);
    let row = &lines.rows[0];
    assert_eq!((row.number, row.reasoning_language.as_deref()), (1, Some("Italian")));
    assert_eq!(conversation(row).effort(), Some("high"));
    let roles: Vec<_> = conversation(row).messages.iter().map(|m| m.role).collect();
    assert_eq!(roles, [Role::System, Role::User, Role::Assistant]);
    let rendered = tiny().render(conversation(row), &RenderOptions::default()).unwrap();
    assert!(rendered.text.contains("Current date: 2025-08-05\n\nReasoning: high\n"), "{}", rendered.text);
}

#[test]
fn a_folder_of_shards_is_read_as_one_file_and_errors_name_the_shard() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        std::io::Write::write_all(
            &mut std::fs::File::create(dir.path().join(name)).unwrap(),
            text.as_bytes(),
        )
        .unwrap();
    };
    let row = |text: &str| format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#);
    put("train-00001-of-00002.jsonl", &format!("{}\n", row("c")));
    put("train-00000-of-00002.jsonl", &format!("{}\n\n{}\n", row("a"), row("b")));
    put("test-00000-of-00001.jsonl", "{");
    put("README.md", "# rows");
    let set = read(dir.path(), OnBadRow::Fail).unwrap();
    let seen: Vec<_> =
        set.rows.iter().map(|r| (r.number, conversation(r).messages[0].content.clone())).collect();
    assert_eq!(seen, [(1, Some("a".into())), (3, Some("b".into())), (4, Some("c".into()))]);
    let (file, number) = set.place(4);
    assert_eq!((file.file_name().unwrap().to_str().unwrap(), number), ("train-00001-of-00002.jsonl", 1));
    let error = prepare(tiny(), &set, &PrepareOptions::default()).unwrap_err().to_string();
    assert!(error.contains("train-00000-of-00002.jsonl:1: the conversation has no assistant"), "{error}");
    put("train-00001-of-00002.jsonl", &format!("{}\n{{\n", row("c")));
    let error = read(dir.path(), OnBadRow::Fail).unwrap_err().to_string();
    assert!(error.contains("train-00001-of-00002.jsonl:2: not a JSON object"), "{error}");
    let set = read(dir.path(), OnBadRow::Skip).unwrap();
    let reject = &set.rejects.first[0];
    assert_eq!((set.rows.len(), reject.number), (3, 5));
    assert!(reject.reason.contains("train-00001-of-00002.jsonl:2: "), "{}", reject.reason);
    let empty = tempfile::tempdir().unwrap();
    assert!(read(empty.path(), OnBadRow::Skip).unwrap_err().to_string().contains("a folder without"));
}

#[test]
fn marks_carriage_returns_and_blank_lines_are_passed_over_and_counted() {
    let row = r#"{"messages":[{"role":"user","content":"x"}]}"#;
    let set = skip(format!("\u{feff}{row}\r\n\r\n   \n{row}\n\n{row}"));
    assert_eq!(set.rows.iter().map(|row| row.number).collect::<Vec<_>>(), [1, 4, 6]);
    assert_eq!(set.rejects.count, 0);
}

#[test]
fn bad_rows_say_their_line_field_and_reason() {
    let cases: [(&str, &str); 17] = [
        ("{", "not a JSON object: "),
        ("[1]", "not a JSON object: the line is a list"),
        (r#"{"a":1,"a":2}"#, "not a JSON object: key `a` occurs twice"),
        ("{}", "messages: missing"),
        (r#"{"instruction":"a","output":"b"}"#, "messages: missing"),
        (r#"{"messages":[]}"#, "messages: empty"),
        (r#"{"messages":{}}"#, "messages: expected a list, found an object"),
        (r#"{"messages":[1]}"#, "messages[0]: expected an object, found a number"),
        (r#"{"messages":[{"content":"x"}]}"#, "messages[0].role: missing"),
        (r#"{"messages":[{"role":"bot","content":"x"}]}"#, "messages[0].role: `bot` is not"),
        (r#"{"messages":[{"role":"user","content":null}]}"#, "messages[0].content: missing"),
        (
            r#"{"messages":[{"role":"user","content":1}]}"#,
            "messages[0].content: expected a text, found a number",
        ),
        (
            r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#,
            "messages[0].content[0]: a part of type `image_url` is not text",
        ),
        (
            r#"{"messages":[{"role":"user","content":"x"},{"role":"system","content":"y"}]}"#,
            "messages[1].role: a system message that is not the first would be dropped",
        ),
        (
            r#"{"messages":[{"role":"assistant","content":"x","thinking":"a","reasoning":"b"}]}"#,
            "messages[0].reasoning: differs from another field",
        ),
        (
            r#"{"messages":[{"role":"assistant","tool_calls":[{"name":"a"},{"name":"b"}]}]}"#,
            "messages[0].tool_calls: 2 calls in one message",
        ),
        (
            r#"{"messages":[{"role":"user","content":"x"}],"current_date":"today"}"#,
            "current_date: `today` is not a date",
        ),
    ];
    let good = r#"{"messages":[{"role":"user","content":"x"}]}"#;
    for (bad, reason) in cases {
        let text = format!("{good}\n{bad}\n{good}\n");
        let set = skip(&text);
        assert_eq!((set.rows.len(), set.rejects.count, set.rejects.first[0].number), (2, 1, 2), "{bad}");
        assert!(set.rejects.first[0].reason.starts_with(reason), "{}", set.rejects.first[0].reason);
        let file = written(&text);
        let error = read(file.path(), OnBadRow::Fail).unwrap_err();
        assert!(matches!(&error, Error::Row { row: 2, .. }), "{error}");
        assert!(error.to_string().starts_with(&format!("{}:2: {reason}", file.path().display())), "{error}");
    }
}

#[test]
fn reasoning_has_three_names_and_calls_two_spellings() {
    let set = skip(
        r#"{"messages":[{"role":"assistant","content":"x","reasoning_content":"why"}]}
{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"text":"b"}]},{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"z\": 1, \"a\": [2.0]}"}}]}]}"#,
    );
    assert_eq!(conversation(&set.rows[0]).messages[0].thinking.as_deref(), Some("why"));
    assert_eq!(conversation(&set.rows[1]).messages[0].content, Some("ab".into()));
    let call = conversation(&set.rows[1]).messages[1].tool_call.as_ref().unwrap();
    assert_eq!((call.name.as_str(), call.arguments.to_string()), ("f", r#"{"z":1,"a":[2.0]}"#.into()));
}

/// Role, reasoning and content of every message of the only row.
fn only(set: &DataSet) -> Vec<(Role, Option<&str>, String)> {
    assert_eq!((set.rows.len(), set.rejects.count), (1, 0), "{:?}", set.rejects);
    let messages = &conversation(&set.rows[0]).messages;
    let content = |m: &descant_harmony::Message| match (&m.content, &m.tool_call) {
        (Some(content), _) => content.as_str().unwrap().to_owned(),
        (None, call) => call.as_ref().unwrap().name.clone(),
    };
    messages.iter().map(|m| (m.role, m.thinking.as_deref(), content(m))).collect()
}

#[test]
fn each_form_is_recognised_and_read() {
    let set = skip(
        r#"{"system":"s","conversations":[{"from":"human","value":"h"},{"from":"gpt","value":"g","thinking":"t"},
           {"from":"human","value":"w"},{"from":"function_call","value":"{\"name\": \"f\", \"arguments\": {}}"},
           {"from":"observation","value":"o"},{"from":"gpt","value":"e"}]}"#
            .replace('\n', " "),
    );
    assert_eq!(set.format, Some(Format::ShareGpt));
    let (system, user, assistant, tool) = (Role::System, Role::User, Role::Assistant, Role::Tool);
    let expected = [
        (system, None, "s"),
        (user, None, "h"),
        (assistant, Some("t"), "g"),
        (user, None, "w"),
        (assistant, None, "f"),
        (tool, None, "o"),
        (assistant, None, "e"),
    ];
    assert_eq!(only(&set), expected.map(|(role, thinking, text)| (role, thinking, text.to_owned())));

    let set = skip(r#"{"instruction":"i","input":"n","output":"o"}"#);
    assert_eq!(set.format, Some(Format::Alpaca));
    assert_eq!(only(&set), [(user, None, "i\n\nn".into()), (assistant, None, "o".into())]);
    let set = skip(r#"{"instruction":"i","input":"","output":"o","reasoning_effort":"low"}"#);
    assert_eq!(only(&set)[0].2, "i");
    assert_eq!(conversation(&set.rows[0]).effort(), Some("low"));

    let set = skip(r#"{"prompt":"p","completion":"c"}"#);
    assert_eq!(set.format, Some(Format::PromptCompletion));
    assert_eq!(only(&set), [(user, None, "p".into()), (assistant, None, "c".into())]);
    let lists =
        r#"{"prompt":[{"role":"user","content":"p"}],"completion":[{"role":"assistant","content":"c"}]}"#;
    assert_eq!(only(&skip(lists)), only(&set));

    let set = skip(r#"{"text":"<|start|>user<|message|>x<|end|>"}"#);
    assert_eq!(set.format, Some(Format::Text));
    assert_eq!(set.rows[0].body, Body::Text("<|start|>user<|message|>x<|end|>".into()));
}

#[test]
fn the_first_good_row_decides_the_form_and_a_given_form_overrides() {
    let text = "{\"text\":1}\n{\"prompt\":\"p\",\"completion\":\"c\",\"text\":\"t\"}\n{\"text\":\"t\"}\n";
    let set = skip(text);
    assert_eq!(set.format, Some(Format::PromptCompletion));
    let rejected: Vec<_> = set.rejects.first.iter().map(|r| (r.number, r.reason.as_str())).collect();
    assert_eq!(rejected, [(1, "text: expected a text, found a number"), (3, "prompt: missing")]);
    let options = ReadOptions { format: Some(Format::Text), on_bad_row: OnBadRow::Skip };
    let set = read_with(written(text).path(), &options).unwrap();
    assert_eq!((set.rows.len(), set.rejects.count), (2, 1));
}

#[test]
fn a_row_in_no_known_form_says_what_it_has() {
    let set = skip(r#"{"question":"q","answer":"a"}"#);
    assert_eq!(set.format, None);
    let reason = &set.rejects.first[0].reason;
    assert!(reason.ends_with("or text; found question, answer"), "{reason}");
}

#[test]
fn compressed_files_are_read_as_they_are_and_damage_is_an_error() {
    let plain = std::fs::read(fixtures().join("data/multilingual-thinking-24.jsonl")).unwrap();
    let rows = read(&fixtures().join("data/multilingual-thinking-24.jsonl"), OnBadRow::Fail).unwrap().rows;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &plain[..9000]).unwrap();
    let mut members = gzip.finish().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &plain[9000..]).unwrap();
    members.extend(gzip.finish().unwrap());
    for packed in [members, zstd::encode_all(&plain[..], 3).unwrap()] {
        assert_eq!(read(written(&packed).path(), OnBadRow::Fail).unwrap().rows, rows);
        let cut = written(&packed[..packed.len() - 40]);
        assert!(matches!(read(cut.path(), OnBadRow::Skip), Err(Error::Io { .. })));
    }
}

#[test]
fn a_file_that_unpacks_to_too_much_is_refused() {
    let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(b'x'), 64 << 20), 3).unwrap();
    assert!(bomb.len() < 100_000);
    let error = read(written(&bomb).path(), OnBadRow::Skip).unwrap_err();
    assert!(error.to_string().contains("unpacks to more than 100 times its size"), "{error}");
}

#[test]
fn a_line_over_the_limit_is_rejected_and_the_next_one_read() {
    let good = r#"{"text":"x"}"#;
    let long = format!("{{\"text\":\"{}\"}}", "a".repeat(descant_harmony::limits::LINE_BYTES));
    let set = skip(format!("{good}\n{long}\n{good}\n"));
    assert_eq!(set.rows.iter().map(|row| row.number).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(set.rejects.first[0].reason, "longer than the limit of 16777216 bytes");
}

#[test]
fn damaged_parquet_is_an_error_and_never_a_panic() {
    let good = std::fs::read(fixtures().join("data/multilingual-thinking-24.parquet")).unwrap();
    let mut refused = 0;
    for cut in (0..good.len()).step_by(97) {
        refused += usize::from(read(written(&good[..cut]).path(), OnBadRow::Fail).is_err());
    }
    assert!(refused + 1 >= good.len().div_ceil(97), "{refused}");
    for at in (4..good.len()).step_by(61) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x41;
        let _ = read(written(&bytes).path(), OnBadRow::Skip);
    }
}

#[test]
fn what_a_page_says_of_its_size_is_looked_at_before_anything_is_allocated() {
    // A size in 27 bytes, of which the reader would make a gigabyte: found by the fuzzer.
    let case = fixtures().join("../fuzz/parquet/page-with-a-long-number");
    let error = read(&case, OnBadRow::Fail).unwrap_err().to_string();
    assert!(error.contains("row group 1, column `messages.list.element.thinking`"), "{error}");
    assert!(error.contains("the header of a page makes no sense"), "{error}");
    // The first page of the good file, with another header in the place of its own.
    let mut bytes = std::fs::read(fixtures().join("data/multilingual-thinking-24.parquet")).unwrap();
    bytes[4..14].copy_from_slice(&[0x15, 0x04, 0x15, 0xfe, 0xff, 0xff, 0x7f, 0x15, 0x02, 0x00]);
    let error = read(written(&bytes).path(), OnBadRow::Fail).unwrap_err().to_string();
    assert!(error.contains("row group 1, column `reasoning_language`"), "{error}");
    assert!(error.contains("a page says that it unpacks to 134217727 bytes"), "{error}");
}

/// A parquet file with one column `text`, a row for each text.
fn parquet_of(texts: &[String]) -> tempfile::NamedTempFile {
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::{properties::WriterProperties, writer::SerializedFileWriter};
    let schema = "message schema { REQUIRED BYTE_ARRAY text (UTF8); }";
    let schema = std::sync::Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(false)
        .build();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer =
        SerializedFileWriter::new(file.reopen().unwrap(), schema, std::sync::Arc::new(properties)).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    let mut column = rows.next_column().unwrap().unwrap();
    let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(text.as_str())).collect();
    column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
    column.close().unwrap();
    rows.close().unwrap();
    writer.close().unwrap();
    file
}

#[test]
fn parquet_has_the_limits_that_lines_have() {
    let long = "x".repeat(descant_harmony::limits::LINE_BYTES + 1);
    // Noise, so that the file is not a bomb: 64 characters that do not repeat in order.
    let noise = |seed: u64| {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'0' + (state >> 58) as u8 % 64)
        };
        (0..400_000).map(|_| next()).collect::<String>()
    };
    let file = parquet_of(&[noise(1), long, noise(2)]);
    let set = read(file.path(), OnBadRow::Skip).unwrap();
    assert_eq!(set.rows.iter().map(|row| row.number).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(set.rejects.first[0].reason, "longer than the limit of 16777216 bytes");
    let bomb = parquet_of(&vec!["x".repeat(1 << 20); 40]);
    assert!(std::fs::metadata(bomb.path()).unwrap().len() < 100_000);
    let error = read(bomb.path(), OnBadRow::Skip).unwrap_err();
    assert!(error.to_string().contains("row 17: unpacks to more than 16777216 bytes"), "{error}");
}
