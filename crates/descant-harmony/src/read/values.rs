//! JSON values one after another, without lines: the elements of an array, alone or inside `{"data": [...]}`, and
//! objects that are spread over lines.
//!
//! Only the brackets are parsed here, and only one element is in memory; whether it is JSON is for the parser to
//! say. An element's number is its place.

use crate::error::{Error, Result};
use crate::limits;
use crate::row::ignored::{Ignored, Place};
use std::io::BufRead;
use std::path::Path;

/// Keys under which files keep their rows.
pub(super) const WRAPPERS: [&str; 7] = ["data", "rows", "train", "examples", "samples", "instances", "items"];

/// Gives every element, with its number from 1. Keys that are beside the rows in an object go to `beside`.
pub(super) fn each_value(
    reader: &mut dyn BufRead,
    path: &Path,
    beside: &mut Ignored,
    take: &mut dyn FnMut(u64, Result<Vec<u8>>) -> Result<()>,
) -> Result<()> {
    let mut values = Values { reader, path, beside, number: 0 };
    values.skip(b"\xef\xbb\xbf")?;
    while let Some(byte) = values.peek()? {
        match byte {
            b'[' => values.elements(take)?,
            b'{' => values.object(take)?,
            _ => return Err(values.bad("expected a list or an object")),
        }
    }
    Ok(())
}

struct Values<'r> {
    reader: &'r mut dyn BufRead,
    path: &'r Path,
    beside: &'r mut Ignored,
    number: u64,
}

impl Values<'_> {
    fn bad(&self, reason: &str) -> Error {
        let place =
            if self.number == 0 { "at its beginning".to_owned() } else { format!("row {}", self.number) };
        Error::DataFile { path: self.path.to_path_buf(), reason: format!("{place}: {reason}") }
    }

    fn chunk(&mut self) -> Result<&[u8]> {
        let path = self.path;
        self.reader.fill_buf().map_err(|source| Error::Io { path: path.to_path_buf(), source })
    }

    fn skip(&mut self, start: &[u8]) -> Result<()> {
        if self.chunk()?.starts_with(start) {
            self.reader.consume(start.len());
        }
        Ok(())
    }

    /// The next byte that is not white space, which stays.
    fn peek(&mut self) -> Result<Option<u8>> {
        loop {
            let chunk = self.chunk()?;
            let Some(byte) = chunk.first() else { return Ok(None) };
            if !byte.is_ascii_whitespace() {
                return Ok(Some(*byte));
            }
            self.reader.consume(1);
        }
    }

    fn expect(&mut self, wanted: &[u8], reason: &str) -> Result<u8> {
        match self.peek()? {
            Some(byte) if wanted.contains(&byte) => {
                self.reader.consume(1);
                Ok(byte)
            }
            Some(_) => Err(self.bad(reason)),
            None => Err(self.bad("the file ends here; a part of it is missing")),
        }
    }

    /// The elements of a list.
    fn elements(&mut self, take: &mut dyn FnMut(u64, Result<Vec<u8>>) -> Result<()>) -> Result<()> {
        self.expect(b"[", "expected a list")?;
        if self.peek()? == Some(b']') {
            self.reader.consume(1);
            return Ok(());
        }
        loop {
            self.number += 1;
            if self.number > 1 && self.peek()? == Some(b']') {
                return Err(self.bad("a comma before `]`, with no row behind it"));
            }
            let value = self.value()?;
            take(self.number, value.ok_or(Error::LineTooLong { limit: limits::LINE_BYTES }))?;
            if self.expect(b",]", "expected `,` or `]` after it")? == b']' {
                return Ok(());
            }
        }
    }

    /// An object: a row, or what the rows are wrapped in.
    fn object(&mut self, take: &mut dyn FnMut(u64, Result<Vec<u8>>) -> Result<()>) -> Result<()> {
        self.expect(b"{", "expected an object")?;
        let (mut row, mut keys, mut too_long, mut wrapped) = (vec![b'{'], Vec::new(), false, false);
        if self.peek()? == Some(b'}') {
            self.reader.consume(1);
            self.number += 1;
            return take(self.number, Ok(b"{}".to_vec()));
        }
        loop {
            if self.peek()? != Some(b'"') {
                return Err(self.bad("expected a key"));
            }
            let key = self.value()?.unwrap_or_default();
            self.expect(b":", "expected `:` after a key")?;
            let name = key.get(1..key.len().saturating_sub(1)).unwrap_or_default();
            let is_wrapper = WRAPPERS.iter().any(|wrapper| wrapper.as_bytes() == name);
            if is_wrapper && !wrapped && self.peek()? == Some(b'[') {
                wrapped = true;
                self.elements(take)?;
            } else {
                keys.push(String::from_utf8_lossy(name).into_owned());
                match self.value()? {
                    Some(value) if row.len() + key.len() + value.len() < limits::LINE_BYTES => {
                        row.extend(key);
                        row.push(b':');
                        row.extend(value);
                        row.push(b',');
                    }
                    _ => too_long = true,
                }
            }
            if self.expect(b",}", "expected `,` or `}` after a value")? == b'}' {
                break;
            }
        }
        if wrapped {
            // What is beside the rows describes them, or is another split.
            for key in &keys {
                self.beside.add(Place::File, key);
            }
            return Ok(());
        }
        row.pop();
        row.push(b'}');
        self.number += 1;
        take(
            self.number,
            if too_long { Err(Error::LineTooLong { limit: limits::LINE_BYTES }) } else { Ok(row) },
        )
    }

    /// A value of any kind, from its first byte to its last; nothing when it is longer than the limit.
    fn value(&mut self) -> Result<Option<Vec<u8>>> {
        let (mut bytes, mut depth, mut in_text, mut escaped) = (Vec::new(), 0_usize, false, false);
        let (mut too_long, mut ended) = (false, false);
        self.peek()?;
        while !ended {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                // A bare word may end with the file.
                if depth > 0 || in_text || bytes.is_empty() {
                    return Err(self.bad("the file ends here; a part of it is missing"));
                }
                break;
            }
            let mut used = 0;
            for byte in chunk {
                let outside = depth == 0 && !in_text;
                if outside && matches!(byte, b',' | b']' | b'}' | b':')
                    || outside && (used > 0 || !bytes.is_empty()) && byte.is_ascii_whitespace()
                {
                    ended = true;
                    break;
                }
                used += 1;
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if in_text => escaped = true,
                    b'"' => in_text = !in_text,
                    b'[' | b'{' if !in_text => depth += 1,
                    b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if depth == 0 && !in_text && matches!(byte, b'"' | b']' | b'}') {
                    ended = true;
                    break;
                }
            }
            if bytes.len() + used > limits::LINE_BYTES {
                (too_long, bytes) = (true, Vec::new());
            } else if !too_long {
                bytes.extend_from_slice(&chunk[..used]);
            }
            if used == 0 && bytes.is_empty() && !too_long {
                return Err(self.bad("expected a value"));
            }
            self.reader.consume(used);
        }
        Ok((!too_long).then_some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn read(text: &str, capacity: usize) -> Result<Vec<String>> {
        let mut reader = BufReader::with_capacity(capacity, text.as_bytes());
        let mut found = Vec::new();
        each_value(&mut reader, Path::new("f"), &mut Ignored::default(), &mut |number, value| {
            assert_eq!(number as usize, found.len() + 1);
            found.push(String::from_utf8(value.unwrap()).unwrap());
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn elements_are_found_however_they_are_laid_out() {
        let text = r#" [ {"a": "]}\"\\"}, {"b" : [1, {"c": 2}]} ,3, "x" ] "#;
        for capacity in [1, 2, 7, 1000] {
            assert_eq!(
                read(text, capacity).unwrap(),
                [r#"{"a": "]}\"\\"}"#, r#"{"b" : [1, {"c": 2}]}"#, "3", "\"x\""]
            );
            let wrapped = "{\"version\": {\"x\": [1]},\n \"data\": [{\"a\": 1},\n{\"a\": 2}], \"n\": 2}";
            assert_eq!(read(wrapped, capacity).unwrap(), ["{\"a\": 1}", "{\"a\": 2}"]);
            let pretty = "{\n  \"a\": 1\n}\n{\n  \"a\": [2],\n \"b\": {}\n}\n";
            assert_eq!(read(pretty, capacity).unwrap(), ["{\"a\":1}", "{\"a\":[2],\"b\":{}}"]);
        }
        for empty in ["[]", " [ ] ", "", "{\"data\": []}"] {
            assert_eq!(read(empty, 3).unwrap(), Vec::<String>::new(), "{empty}");
        }
    }

    #[test]
    fn keys_beside_the_rows_are_counted() {
        let text = r#"{"version": 1, "train": [{"a": 1}], "test": [{"a": 2}], "data": []}"#;
        let (mut beside, mut rows) = (Ignored::default(), 0);
        each_value(&mut text.as_bytes(), Path::new("f"), &mut beside, &mut |_, _| {
            rows += 1;
            Ok(())
        })
        .unwrap();
        let keys: Vec<String> = beside.iter().map(|key| key.key).collect();
        assert_eq!((rows, keys), (1, vec!["data".to_owned(), "test".to_owned()]));
    }

    #[test]
    fn what_is_broken_says_where() {
        for (text, reason) in [
            ("[{\"a\": 1}, {\"a\"", "f: row 2: the file ends here"),
            ("[{\"a\": 1} {\"a\": 2}]", "f: row 1: expected `,` or `]` after it"),
            ("[1,]", "f: row 2: a comma before `]`"),
            ("[1,,2]", "f: row 2: expected a value"),
            ("[1", "f: row 1: the file ends here"),
            ("x", "f: at its beginning: expected a list or an object"),
            ("{1: 2}", "f: at its beginning: expected a key"),
            ("{\"a\" 2}", "f: at its beginning: expected `:`"),
        ] {
            let error = read(text, 2).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{text}: {error}");
        }
    }
}
