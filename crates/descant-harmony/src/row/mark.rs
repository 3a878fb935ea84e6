//! Marks in place of values that JSON does not have, and that `unfit` decides about.

use serde_json::Value as Json;
use std::borrow::Cow;

/// Begins every mark: a character that Unicode reserves for a program's internal use.
pub(crate) const MARK: char = '\u{FDD1}';

/// The mark of a value that is `what`.
pub(crate) fn mark(what: &str) -> Json {
    Json::String(format!("{MARK}{what}"))
}

/// JSON text with marks in place of the words that Python writes for numbers that JSON does not have, and of numbers that
/// no 64 bits hold; nothing where there are none, or where the text holds a mark already.
pub(crate) fn without_wild_numbers(text: &[u8]) -> Option<Vec<u8>> {
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
        let word = match word {
            Some(word) => Some((word.len(), String::from_utf8_lossy(word))),
            None if in_text => None,
            None => wild(&text[at..]),
        };
        if let Some((length, what)) = word {
            out.push(b'"');
            out.extend_from_slice(&sign);
            out.extend_from_slice(what.as_bytes());
            out.push(b'"');
            (at, found) = (at + length, true);
            continue;
        }
        match text[at] {
            b'-' | b'0'..=b'9' if !in_text => {
                let length = number(&text[at..]).len();
                out.extend_from_slice(&text[at..at + length]);
                at += length;
                continue;
            }
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

/// The number that a text begins with, in bytes that numbers are made of.
fn number(text: &[u8]) -> &[u8] {
    let part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    &text[..text.iter().position(|byte| !part(byte)).unwrap_or(text.len())]
}

/// The bytes of a number that no 64 bits hold, where a text begins with one, and what it is.
fn wild(text: &[u8]) -> Option<(usize, Cow<'static, str>)> {
    let digits = std::str::from_utf8(number(text)).ok()?;
    let what = if digits.contains(['.', 'e', 'E']) {
        let is_wild = digits.parse::<f64>().is_ok_and(f64::is_infinite);
        is_wild.then_some("a number that is not finite".into())
    } else {
        let is_wild = digits.parse::<f64>().is_ok() && long(digits);
        is_wild.then(|| {
            format!("the whole number {} of more than 64 bits", &digits[..digits.len().min(40)]).into()
        })
    };
    what.map(|what| (digits.len(), what))
}

/// Whether digits are those of a whole number that no 64 bits hold.
fn long(digits: &str) -> bool {
    digits.parse::<u64>().is_err() && digits.parse::<i64>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_outside_texts_are_marked() {
        let marked =
            |text: &str| without_wild_numbers(text.as_bytes()).map(|text| String::from_utf8(text).unwrap());
        assert_eq!(marked(r#"{"a": "NaN \" NaN", "b": 1}"#), None);
        let both = marked(r#"{"a": "NaN \\", "b": NaN, "c": [-Infinity]}"#).unwrap();
        assert_eq!(both, "{\"a\": \"NaN \\\\\", \"b\": \"\u{FDD1}NaN\", \"c\": [\"\u{FDD1}-Infinity\"]}");
        assert_eq!(marked("{\"a\": \"\u{FDD1}\", \"b\": NaN}"), None);
        assert_eq!(marked(r#"{"a": [18446744073709551615, -9223372036854775808, 1e308, "1e999"]}"#), None);
        assert_eq!(
            marked("[18446744073709551616,1e999]").unwrap(),
            "[\"\u{FDD1}the whole number 18446744073709551616 of more than 64 bits\",\"\u{FDD1}a number that is not \
             finite\"]"
        );
    }
}
