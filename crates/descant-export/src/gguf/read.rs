//! Reading GGUF back: what this crate wrote, to be compared with what it was made of.
//!
//! Reads any well-formed file of version 3; lengths are checked before anything is allocated, and nothing outside the
//! file is ever touched. Values of keys are kept where something here asks for them: numbers and texts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use descant_files::{MappedFile, Ranges};

use super::ALIGNMENT;
use crate::error::{Error, Result};

/// Most axes of a tensor.
const MAX_AXES: u32 = 4;
/// Deepest array in an array.
const MAX_DEPTH: usize = 4;
/// Most keys or tensors: the published 120b has 691 tensors.
const MAX_COUNT: u64 = 1 << 16;

/// An opened file.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    file: Ranges,
    numbers: BTreeMap<String, f64>,
    texts: BTreeMap<String, String>,
    tensors: BTreeMap<String, Tensor>,
}

/// A tensor of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Innermost axis first.
    pub ne: Vec<u64>,
    /// GGML's number of the type.
    pub kind: u32,
    /// First byte in the file.
    pub start: u64,
    /// Bytes.
    pub length: u64,
}

/// GGML's numbers of the types that are written here, with elements and bytes of a block.
pub(crate) const TYPES: [(u32, u64, u64); 4] = [(0, 1, 4), (1, 1, 2), (30, 1, 2), (39, 32, 17)];

impl Gguf {
    /// Opens the file and reads everything before its tensors.
    ///
    /// # Errors
    /// The file cannot be read, is not a GGUF of version 3, or a tensor does not lie within it.
    pub fn open(path: &Path) -> Result<Self> {
        let mapped = MappedFile::open(path)?;
        let mut found = Found::default();
        parse(mapped.bytes(), &mut found).map_err(|reason| Error::Gguf { path: path.to_owned(), reason })?;
        let Found { numbers, texts, tensors } = found;
        Ok(Self { path: path.to_owned(), file: Ranges::open(path)?, numbers, texts, tensors })
    }

    /// The value of a key that is a number or true or false.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.numbers.get(key).copied()
    }

    /// The value of a key that is a text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.texts.get(key).map(String::as_str)
    }

    /// Its tensors, by name.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// Some of a tensor's bytes.
    ///
    /// # Errors
    /// There is no such tensor, it is shorter, or the system refuses.
    pub fn bytes(&self, name: &str, start: u64, length: u64) -> Result<Vec<u8>> {
        let tensor =
            self.tensors.get(name).ok_or_else(|| self.wrong(format!("tensor `{name}` is missing")))?;
        if start.checked_add(length).is_none_or(|end| end > tensor.length) {
            return Err(self.wrong(format!("tensor `{name}` has {} bytes only", tensor.length)));
        }
        let mut bytes = vec![0; length as usize];
        self.file.read(tensor.start + start, &mut bytes)?;
        Ok(bytes)
    }

    /// An error of this file.
    pub(crate) fn wrong(&self, reason: String) -> Error {
        Error::Gguf { path: self.path.clone(), reason }
    }
}

#[derive(Default)]
struct Found {
    numbers: BTreeMap<String, f64>,
    texts: BTreeMap<String, String>,
    tensors: BTreeMap<String, Tensor>,
}

type Parsed<T> = std::result::Result<T, String>;

/// Parses a whole file; without a file for fuzzing.
fn parse(bytes: &[u8], found: &mut Found) -> Parsed<()> {
    let mut cursor = Cursor { bytes, at: 0 };
    if cursor.take(4)? != b"GGUF" {
        return Err("it does not begin with GGUF".to_owned());
    }
    let version = cursor.u32()?;
    if version != 3 {
        return Err(format!("it is of version {version}; expected 3"));
    }
    let (n_tensors, n_keys) = (cursor.count()?, cursor.count()?);
    for _ in 0..n_keys {
        let key = cursor.text()?;
        let kind = cursor.u32()?;
        match kind {
            8 => {
                let text = cursor.text()?;
                found.texts.insert(key, text);
            }
            9 => cursor.skip_array(0)?,
            _ => {
                let number = cursor.number(kind)?;
                found.numbers.insert(key, number);
            }
        }
    }
    let mut infos = Vec::new();
    for _ in 0..n_tensors {
        infos.push(cursor.info()?);
    }
    if found.numbers.get("general.alignment").is_some_and(|n| n.to_bits() != (ALIGNMENT as f64).to_bits()) {
        return Err(format!("its tensors are not aligned to {ALIGNMENT}"));
    }
    let body = (cursor.at as u64).next_multiple_of(ALIGNMENT);
    for (name, mut tensor) in infos {
        let start = body.checked_add(tensor.start).filter(|start| start.is_multiple_of(ALIGNMENT));
        let end = start.and_then(|start| start.checked_add(tensor.length));
        if end.is_none_or(|end| end > bytes.len() as u64) {
            return Err(format!("tensor `{name}` is not inside the file"));
        }
        tensor.start = start.unwrap_or_default();
        if found.tensors.insert(name.clone(), tensor).is_some() {
            return Err(format!("tensor `{name}` is there twice"));
        }
    }
    Ok(())
}

/// Whether bytes are a well-formed file; for tests with damaged ones.
///
/// # Errors
/// What is wrong.
#[doc(hidden)]
pub fn parse_gguf(bytes: &[u8]) -> std::result::Result<usize, String> {
    let mut found = Found::default();
    parse(bytes, &mut found)?;
    Ok(found.tensors.len())
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Parsed<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len());
        let end =
            end.ok_or_else(|| format!("it ends at byte {} in the middle of its header", self.bytes.len()))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn u32(&mut self) -> Parsed<u32> {
        self.take(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn u64(&mut self) -> Parsed<u64> {
        let (low, high) = (self.u32()?, self.u32()?);
        Ok(u64::from(low) | u64::from(high) << 32)
    }

    fn count(&mut self) -> Parsed<u64> {
        let n = self.u64()?;
        if n > MAX_COUNT { Err(format!("it claims {n} keys or tensors")) } else { Ok(n) }
    }

    fn text(&mut self) -> Parsed<String> {
        let length = usize::try_from(self.u64()?).map_err(|e| e.to_string())?;
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| "a text is not UTF-8".to_owned())
    }

    fn number(&mut self, kind: u32) -> Parsed<f64> {
        Ok(match kind {
            0 | 7 => f64::from(self.take(1)?[0]),
            1 => f64::from(self.take(1)?[0] as i8),
            2 | 3 => {
                let b = self.take(2)?;
                let x = u16::from_le_bytes([b[0], b[1]]);
                if kind == 2 { f64::from(x) } else { f64::from(x as i16) }
            }
            4 => f64::from(self.u32()?),
            5 => f64::from(self.u32()? as i32),
            6 => f64::from(f32::from_bits(self.u32()?)),
            10 => self.u64()? as f64,
            11 => self.u64()? as i64 as f64,
            12 => f64::from_bits(self.u64()?),
            other => return Err(format!("a key has type {other}")),
        })
    }

    fn skip_array(&mut self, depth: usize) -> Parsed<()> {
        if depth > MAX_DEPTH {
            return Err("arrays are nested too deeply".to_owned());
        }
        let (kind, n) = (self.u32()?, self.u64()?);
        match kind {
            8 | 9 => {
                for _ in 0..n {
                    if kind == 8 { drop(self.text()?) } else { self.skip_array(depth + 1)? }
                }
            }
            _ => {
                let size = match kind {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    10..=12 => 8,
                    other => return Err(format!("an array is of type {other}")),
                };
                let bytes = usize::try_from(n).ok().and_then(|n| n.checked_mul(size));
                self.take(bytes.ok_or("an array is too long")?)?;
            }
        }
        Ok(())
    }

    fn info(&mut self) -> Parsed<(String, Tensor)> {
        let name = self.text()?;
        let axes = self.u32()?;
        if axes == 0 || axes > MAX_AXES {
            return Err(format!("tensor `{name}` has {axes} axes"));
        }
        let mut ne = Vec::new();
        for _ in 0..axes {
            ne.push(self.u64()?);
        }
        let kind = self.u32()?;
        let start = self.u64()?;
        let known = TYPES.into_iter().find(|(number, ..)| *number == kind);
        let (_, elements, bytes) = known.ok_or_else(|| format!("tensor `{name}` is of type {kind}"))?;
        let n = ne.iter().try_fold(1_u64, |n, axis| n.checked_mul(*axis));
        let whole =
            n.filter(|_| ne[0].is_multiple_of(elements)).and_then(|n| (n / elements).checked_mul(bytes));
        let length = whole.ok_or_else(|| format!("tensor `{name}` is {ne:?}, which its type cannot be"))?;
        Ok((name, Tensor { ne, kind, start, length }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::write::{Info, Value, header};
    use super::*;

    fn file() -> Vec<u8> {
        let keys = [
            ("a".to_owned(), Value::Text("x".to_owned())),
            ("b".to_owned(), Value::Texts(vec!["y".to_owned(), String::new()])),
            ("c".to_owned(), Value::F32(1.5)),
            ("d".to_owned(), Value::I32s(vec![-1, 2])),
            ("e".to_owned(), Value::Bool(true)),
            ("f".to_owned(), Value::U32(7)),
        ];
        let infos = [
            Info { name: "t", ne: vec![2, 3], kind: 0, bytes: 24 },
            Info { name: "u", ne: vec![32], kind: 39, bytes: 17 },
        ];
        let mut file = header(&keys, infos.into_iter());
        file.resize(file.len() + 32 + 17, 9);
        file
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gguf");
        descant_files::write_atomic(&path, &file()).unwrap();
        let read = Gguf::open(&path).unwrap();
        assert_eq!(
            (read.text("a"), read.number("c"), read.number("e"), read.number("f")),
            (Some("x"), Some(1.5), Some(1.0), Some(7.0))
        );
        assert_eq!(read.tensors()["t"].ne, [2, 3]);
        assert_eq!(read.bytes("u", 0, 17).unwrap(), [9; 17]);
        assert!(read.bytes("u", 1, 17).is_err());
    }

    #[test]
    fn a_file_that_was_cut_anywhere_is_refused() {
        let file = file();
        assert_eq!(parse_gguf(&file), Ok(2));
        for length in 0..file.len() {
            assert!(parse_gguf(&file[..length]).is_err(), "{length}");
        }
    }
}
