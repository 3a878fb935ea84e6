//! One line of JSON, read strictly.
//!
//! JSON allows a key twice and most parsers keep the last, so the same line means one thing here and another there. Such
//! a line is refused. Depth is bounded by the parser (128), length by the reader of lines.

use crate::error::{Error, Result};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value as Json};
use std::fmt;

/// The object on a line.
pub(crate) fn object(line: &[u8]) -> Result<Map<String, Json>> {
    let bad = |error: serde_json::Error| Error::Json { reason: error.to_string() };
    let mut parser = serde_json::Deserializer::from_slice(line);
    let json = Strict.deserialize(&mut parser).map_err(bad)?;
    parser.end().map_err(bad)?;
    match json {
        Json::Object(map) => Ok(map),
        Json::Array(_) => {
            Err(Error::Json { reason: "the line is a list; one object a line is expected".into() })
        }
        _ => Err(Error::Json { reason: "the line is a single value; one object a line is expected".into() }),
    }
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
                return Err(serde::de::Error::custom(format_args!("key `{key}` stands twice")));
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
        let strict = Json::Object(object(line.as_bytes()).unwrap());
        assert_eq!(strict.to_string(), serde_json::from_str::<Json>(line).unwrap().to_string());
    }

    #[test]
    fn repeated_keys_depth_and_other_values_are_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        for bad in
            ["[1]", "1", "{\"a\":1,\"a\":1}", "{\"a\":{\"b\":1,\"b\":2}}", "{} {}", "", "{\"a\":NaN}", &deep]
        {
            assert!(matches!(object(bad.as_bytes()), Err(Error::Json { .. })), "{bad}");
        }
        assert!(object(b"{\"a\":\"\xff\"}").is_err());
    }
}
