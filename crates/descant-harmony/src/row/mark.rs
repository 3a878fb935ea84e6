//! Marks in place of values that JSON does not have, and that `unfit` decides about.

use serde_json::Value as Json;

/// Begins every mark: a character that Unicode reserves for a program's internal use.
pub(crate) const MARK: char = '\u{FDD1}';

/// The mark of a value that is `what`.
pub(crate) fn mark(what: &str) -> Json {
    Json::String(format!("{MARK}{what}"))
}

/// JSON text with marks in place of the words that Python writes for numbers that JSON does not have; nothing where
/// there are none, or where the text holds a mark already.
pub(crate) fn without_nan(text: &[u8]) -> Option<Vec<u8>> {
    const WORDS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut buffer = [0; 4];
    let sign = MARK.encode_utf8(&mut buffer).as_bytes().to_vec();
    if text.windows(sign.len()).any(|window| window == sign) {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() + 16);
    let (mut at, mut in_text, mut found) = (0, false, false);
    while at < text.len() {
        let word = if in_text { None } else { WORDS.iter().find(|word| text[at..].starts_with(word)) };
        if let Some(word) = word {
            out.push(b'"');
            out.extend_from_slice(&sign);
            out.extend_from_slice(word);
            out.push(b'"');
            (at, found) = (at + word.len(), true);
            continue;
        }
        match text[at] {
            b'"' => in_text = !in_text,
            b'\\' if in_text => {
                out.push(b'\\');
                at += 1;
            }
            _ => {}
        }
        out.extend(text.get(at));
        at += 1;
    }
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_outside_texts_are_marked() {
        let marked = |text: &str| without_nan(text.as_bytes()).map(|text| String::from_utf8(text).unwrap());
        assert_eq!(marked(r#"{"a": "NaN \" NaN", "b": 1}"#), None);
        let both = marked(r#"{"a": "NaN \\", "b": NaN, "c": [-Infinity]}"#).unwrap();
        assert_eq!(both, "{\"a\": \"NaN \\\\\", \"b\": \"\u{FDD1}NaN\", \"c\": [\"\u{FDD1}-Infinity\"]}");
        assert_eq!(marked("{\"a\": \"\u{FDD1}\", \"b\": NaN}"), None);
    }
}
