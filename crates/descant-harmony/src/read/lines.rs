//! The lines of a text file, each within the limit.
//!
//! A mark at the beginning (BOM), carriage returns and blank lines are what editors leave behind; they are passed over
//! and still counted, so that a line's number is what an editor shows. A line that is too long is read to its end
//! without being kept, so the lines after it keep their numbers.

use crate::error::{Error, Result};
use crate::limits;
use std::io::{self, BufRead};
use std::path::Path;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Gives every line that is not blank, with its number from 1.
pub(crate) fn each_line(
    reader: &mut impl BufRead,
    path: &Path,
    take: &mut impl FnMut(u64, Result<Vec<u8>>) -> Result<()>,
) -> Result<()> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let mut number = 0;
    while let Some(line) = next_line(reader, limits::LINE_BYTES).map_err(io)? {
        number += 1;
        let Line::Kept(line) = line else {
            take(number, Err(Error::LineTooLong { limit: limits::LINE_BYTES }))?;
            continue;
        };
        let line = match line.strip_prefix(BYTE_ORDER_MARK) {
            Some(text) if number == 1 => text.to_vec(),
            _ => line,
        };
        if !line.trim_ascii().is_empty() {
            take(number, Ok(line))?;
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Kept(Vec<u8>),
    TooLong,
}

/// The next line without its end; `None` at the end of the file.
fn next_line(reader: &mut impl BufRead, limit: usize) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let (mut any, mut too_long) = (false, false);
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            break;
        }
        any = true;
        let newline = memchr::memchr(b'\n', chunk);
        let part = &chunk[..newline.unwrap_or(chunk.len())];
        if line.len() + part.len() > limit {
            too_long = true;
            line = Vec::new();
        } else if !too_long {
            line.extend_from_slice(part);
        }
        let used = newline.map_or(chunk.len(), |at| at + 1);
        reader.consume(used);
        if newline.is_some() {
            break;
        }
    }
    Ok(match (any, too_long) {
        (false, _) => None,
        (true, true) => Some(Line::TooLong),
        (true, false) => Some(Line::Kept(line)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    #[test]
    fn a_long_line_is_passed_over_and_the_next_one_kept() {
        let kept = |text: &str| Some(Line::Kept(text.as_bytes().to_vec()));
        for capacity in [1, 3, 64] {
            let mut reader = BufReader::with_capacity(capacity, &b"12345\n123456\n\n12345"[..]);
            let mut next = || next_line(&mut reader, 5).unwrap();
            assert_eq!(
                [next(), next(), next(), next()],
                [kept("12345"), Some(Line::TooLong), kept(""), kept("12345")]
            );
            assert_eq!(next(), None);
        }
    }
}
