//! Readers: the same rows from every form, and what is said about bad ones.

use crate::support::{fixtures, tiny};
use descant_harmony::read::{DataSet, OnBadRow, read};
use descant_harmony::{Error, RenderOptions, Role};

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
    assert_eq!(row.conversation.effort(), Some("high"));
    let roles: Vec<_> = row.conversation.messages.iter().map(|m| m.role).collect();
    assert_eq!(roles, [Role::System, Role::User, Role::Assistant]);
    let rendered = tiny().render(&row.conversation, &RenderOptions::default()).unwrap();
    assert!(rendered.text.contains("Current date: 2025-08-05\n\nReasoning: high\n"), "{}", rendered.text);
}

#[test]
fn marks_carriage_returns_and_blank_lines_are_passed_over_and_counted() {
    let row = r#"{"messages":[{"role":"user","content":"x"}]}"#;
    let set = skip(format!("\u{feff}{row}\r\n\r\n   \n{row}\n\n{row}"));
    assert_eq!(set.rows.iter().map(|row| row.number).collect::<Vec<_>>(), [1, 4, 6]);
    assert_eq!(set.rejected, 0);
}

#[test]
fn bad_rows_say_their_line_field_and_reason() {
    let cases: [(&str, &str); 16] = [
        ("{", "not a JSON object: "),
        ("[1]", "not a JSON object: the line is a list"),
        (r#"{"a":1,"a":2}"#, "not a JSON object: key `a` stands twice"),
        ("{}", "messages: missing"),
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
        assert_eq!((set.rows.len(), set.rejected, set.rejects[0].number), (2, 1, 2), "{bad}");
        assert!(set.rejects[0].reason.to_string().starts_with(reason), "{}", set.rejects[0].reason);
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
    assert_eq!(set.rows[0].conversation.messages[0].thinking.as_deref(), Some("why"));
    assert_eq!(set.rows[1].conversation.messages[0].content, Some("ab".into()));
    let call = set.rows[1].conversation.messages[1].tool_call.as_ref().unwrap();
    assert_eq!((call.name.as_str(), call.arguments.to_string()), ("f", r#"{"z":1,"a":[2.0]}"#.into()));
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
