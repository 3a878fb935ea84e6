//! What `{{ value }}` writes in Python's Jinja: `str` of the value.
//!
//! Nearly always that is a text and written as it is. But a template that prints a flag or a list is given Python's
//! words for it when a model is served, and training on any other spelling would teach other tokens.

use crate::text::python::float_repr;
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, escape_formatter};
use serde_json::Value as Json;
use std::fmt::Write;

/// Prints a value.
pub(crate) fn print(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Number | ValueKind::Seq | ValueKind::Map => {
            let json = serde_json::to_value(value)
                .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
            let mut text = String::new();
            repr(&json, &mut text);
            out.write_str(&text).map_err(Error::from)
        }
        _ => escape_formatter(out, state, value),
    }
}

/// A value as Python source; all but texts are printed like that.
fn repr(json: &Json, out: &mut String) {
    match json {
        Json::Null => out.push_str("None"),
        Json::Bool(true) => out.push_str("True"),
        Json::Bool(false) => out.push_str("False"),
        Json::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => out.push_str(&float_repr(float)),
            _ => out.push_str(&number.to_string()),
        },
        Json::String(text) => quoted(text, out),
        Json::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                repr(item, out);
            }
            out.push(']');
        }
        Json::Object(map) => {
            out.push('{');
            for (at, (key, value)) in map.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                quoted(key, out);
                out.push_str(": ");
                repr(value, out);
            }
            out.push('}');
        }
    }
}

/// A text between single quotes, or double ones where only those need no escape.
fn quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for char in text.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if char == quote => out.extend(['\\', quote]),
            _ if is_printable(char) => out.push(char),
            _ => {
                let code = u32::from(char);
                // Writing into a String cannot fail.
                let _ = match code {
                    0..=0xFF => write!(out, "\\x{code:02x}"),
                    0x100..=0xFFFF => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// Python's `isprintable`. Rust's table for `Debug` is made of the same categories; behind another character it escapes
/// nothing beside them.
fn is_printable(char: char) -> bool {
    let mut pair = [0; 5];
    pair[0] = b'a';
    let length = char.encode_utf8(&mut pair[1..]).len();
    let escaped = std::str::from_utf8(&pair[..=length]).is_ok_and(|pair| pair.escape_debug().count() != 2);
    !escaped || matches!(char, '"' | '\'')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn printed(json: Json) -> String {
        let mut env = minijinja::Environment::new();
        env.set_formatter(print);
        let value = Value::from(minijinja::value::Serde(json));
        env.render_str("{{ value }}{{ nothing }}", minijinja::context! { value }).unwrap()
    }

    #[test]
    fn values_are_printed_as_python_prints_them() {
        for (value, text) in [
            (json!("é <b> 'x'"), "é <b> 'x'"),
            (json!(true), "True"),
            (json!(false), "False"),
            (json!(null), "None"),
            (json!(u64::MAX), "18446744073709551615"),
            (json!(20.0), "20.0"),
            (json!([]), "[]"),
            (json!({"a": [1, null, 1e20, {}], "b": true}), "{'a': [1, None, 1e+20, {}], 'b': True}"),
            (json!([{"type": "text", "text": "it's"}]), r#"[{'type': 'text', 'text': "it's"}]"#),
        ] {
            assert_eq!(printed(value), text);
        }
    }

    /// Each as `repr` of Python 3.11 gives it.
    #[test]
    fn texts_inside_lists_are_quoted_and_escaped_as_python_does() {
        for (text, repr) in [
            ("a\"b", r#"'a"b'"#),
            ("a'b", r#""a'b""#),
            ("a'\"b", r#"'a\'"b'"#),
            ("\\ \n\r\t\0\u{1b}\u{7f}", r"'\\ \n\r\t\x00\x1b\x7f'"),
            ("é日本👩 \u{301}e\u{301}", "'é日本👩 \u{301}e\u{301}'"),
            ("\u{85}\u{a0}\u{ad}", r"'\x85\xa0\xad'"),
            ("\u{200d}\u{2028}\u{3000}\u{feff}\u{fdd0}\u{e000}", r"'\u200d\u2028\u3000\ufeff\ufdd0\ue000'"),
            ("\u{e0001}\u{10ffff}", r"'\U000e0001\U0010ffff'"),
        ] {
            assert_eq!(printed(json!([text])), format!("[{repr}]"));
        }
    }
}
