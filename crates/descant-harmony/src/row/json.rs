//! JSON, read strictly.
//!
//! JSON allows a key twice and most parsers keep the last, so the same line means one thing here and another there.
//! Such a line is refused. So is a whole number of more than 64 bits where it is needed: it would come out as another
//! number. Depth is bounded by the parser (128), length by the reader of lines.

use crate::error::{Error, Result};
use crate::row::mark;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value as Json};
use std::fmt;

/// The object on a line, and whether it holds marks in place of wild numbers, for `unfit` to decide about.
pub(crate) fn object(line: &[u8]) -> Result<(Map<String, Json>, bool)> {
    let (json, marked) = match value(line) {
        Ok(json) => (json, false),
        Err(reason) => match mark::without_wild_numbers(line).map(|line| value(&line)) {
            Some(Ok(json)) => (json, true),
            _ => return Err(Error::Json { reason: not_utf8(line).unwrap_or(reason) }),
        },
    };
    match json {
        Json::Object(map) => Ok((map, marked)),
        Json::Array(_) => {
            Err(Error::Json { reason: "the line is a list; one object a line is expected".into() })
        }
        _ => Err(Error::Json { reason: "the line is a single value; one object a line is expected".into() }),
    }
}

/// What to say of a line that is not UTF-8.
fn not_utf8(line: &[u8]) -> Option<String> {
    let at = std::str::from_utf8(line).err()?.valid_up_to() + 1;
    Some(format!("no UTF-8 text, from byte {at} on; `iconv -f LATIN1 -t UTF-8` turns Latin-1 into it"))
}

/// Any value; on failure the reason.
pub(crate) fn value(text: &[u8]) -> Result<Json, String> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    let json = Strict.deserialize(&mut parser).map_err(|error| words(&error, text))?;
    parser.end().map_err(|error| words(&error, text))?;
    match long_number(text) {
        Some(digits) => Err(format!("the whole number {digits} has more than 64 bits")),
        None => Ok(json),
    }
}

/// The parser's words. It counts lines within the row: those of a row on one line would be taken for the file's.
fn words(error: &serde_json::Error, text: &[u8]) -> String {
    let words = error.to_string();
    if text.contains(&b'\n') { words } else { words.replace(" at line 1 column ", " at column ") }
}

/// The first whole number of valid JSON that no 64 bits hold.
fn long_number(json: &[u8]) -> Option<String> {
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        let mut length = 1;
        match byte {
            b'"' => length = text_bytes(&json[at..]),
            b'-' | b'0'..=b'9' => {
                let rest = &json[at + 1..];
                let part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                length = 1 + rest.iter().position(|byte| !part(byte)).unwrap_or(rest.len());
                let digits = String::from_utf8_lossy(&json[at..at + length]);
                let whole = !digits.contains(['.', 'e', 'E']);
                if whole && digits.parse::<u64>().is_err() && digits.parse::<i64>().is_err() {
                    return Some(digits.chars().take(40).collect());
                }
            }
            _ => {}
        }
        at += length;
    }
    None
}

/// Bytes of the text in quotes with which valid JSON begins, its quotes included.
fn text_bytes(json: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', json.get(at..).unwrap_or_default()) {
        at += found;
        if json[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    json.len()
}

/// Builds a value, refusing repeated keys.
#[derive(Clone, Copy)]
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Json::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                let key: String = key.chars().take(60).collect();
                return Err(serde::de::Error::custom(format_args!("key `{key}` occurs twice")));
            }
            let value = entries.next_value_seed(self)?;
            map.insert(key, value);
        }
        Ok(Json::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_reading_equals_plain_reading_where_both_accept() {
        let line = r#" {"b":[1,-2,3.5,true,null,"é\u0000"],"a":{"x":{}}, "n":18446744073709551615} "#;
        let strict = Json::Object(object(line.as_bytes()).unwrap().0);
        assert_eq!(strict.to_string(), serde_json::from_str::<Json>(line).unwrap().to_string());
    }

    #[test]
    fn whole_numbers_keep_every_digit_or_are_refused() {
        for good in ["18446744073709551615", "-9223372036854775808", "1e30", "100000000000000000000.0", "-0"]
        {
            assert!(value(good.as_bytes()).is_ok(), "{good}");
            assert!(object(format!(r#"{{"a":[{good},"\\"]}}"#).as_bytes()).is_ok(), "{good}");
        }
        for bad in ["18446744073709551616", "-9223372036854775809", "123456789012345678901234567890"] {
            let error = value(format!(r#"{{"b":"\"1","a":[{bad}]}}"#).as_bytes()).unwrap_err();
            assert_eq!(error, format!("the whole number {bad} has more than 64 bits"));
            let (marked, is_marked) = object(format!(r#"{{"b":"\"1","a":[{bad}]}}"#).as_bytes()).unwrap();
            assert!(
                is_marked && marked["a"][0].as_str().is_some_and(|mark| mark.contains(bad)),
                "{marked:?}"
            );
            assert!(object(format!(r#"{{"a":"x\\","b":"{bad}"}}"#).as_bytes()).is_ok(), "a text is a text");
        }
    }

    #[test]
    fn repeated_keys_depth_and_other_values_are_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        for bad in ["[1]", "1", "{\"a\":1,\"a\":1}", "{\"a\":{\"b\":1,\"b\":2}}", "{} {}", "", &deep] {
            assert!(matches!(object(bad.as_bytes()), Err(Error::Json { .. })), "{bad}");
        }
        let reason = |text: &str| value(text.as_bytes()).unwrap_err();
        assert_eq!(reason("{\"a\":1} {}"), "trailing characters at column 9");
        assert_eq!(reason("{\n\"a\":1} {}"), "trailing characters at line 2 column 8");
        let error = object(b"{\"a\":\"\xff\"}").unwrap_err().to_string();
        assert!(error.contains("no UTF-8 text, from byte 7 on"), "{error}");
    }
}
