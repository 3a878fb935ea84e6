//! Prepared examples in a file, to be read one by one in any order: what [`each_example`](crate::prepare::each_example)
//! gave, without rendering and tokenizing again.
//!
//! ```text
//! magic | record, record, ... | index: an entry a record | tail: JSON | trailer: where both are, and their checksum
//! ```
//!
//! The trailer is written last, so a file that was not finished has none. Everything is checked before it is used: the
//! index and the tail when the file is opened, and every record against the checksum in its entry. Whose file it is,
//! where it is and when it is removed is for the caller to say.

mod record;
mod write;

pub use write::Writer;

use crate::error::{Error, Result};
use crate::examples::languages::LanguageShare;
use crate::examples::prepare::{Example, Survey};
use flate2::Crc;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fs::File;

/// What a file begins with; another form has another number.
const MAGIC: &[u8; 8] = b"DSCEXA\x00\x02";
/// Bytes of an index entry: length of the record, its checksum, tokens, targets, row, group, key.
const ENTRY_BYTES: usize = 40;
/// Bytes of the trailer: where the index begins, how many entries it has, bytes of the tail, checksum, magic.
const TRAILER_BYTES: usize = 36;
/// Longest tail.
const TAIL_BYTES: u64 = 64 << 20;
/// Records that are checked together.
const CHECKED: usize = 1024;

/// What is known of an example without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    at: u64,
    bytes: u32,
    crc: u32,
    tokens: u32,
    targets: u32,
    row: u64,
    group: u64,
    key: u64,
}

/// What is written behind the records.
#[derive(Serialize, Deserialize)]
struct Tail {
    key: String,
    samples_sha256: String,
    survey: Survey,
    languages: Vec<LanguageShare>,
}

/// Where the bytes are.
#[derive(Debug)]
enum Bytes {
    File(File),
    Memory(Vec<u8>),
}

/// Examples that were written by a [`Writer`].
#[derive(Debug)]
pub struct Store {
    bytes: Bytes,
    entries: Vec<Entry>,
    samples_sha256: String,
    survey: Survey,
}

fn damaged(reason: &str) -> Error {
    Error::Store { reason: reason.to_owned() }
}

impl Store {
    /// Opens a file that a [`Writer`] with this key made.
    ///
    /// # Errors
    /// [`Error::Store`] when it is another's, of another key, not whole, or damaged.
    pub fn open(file: File, key: &str) -> Result<Self> {
        Self::of(Bytes::File(file), key)
    }

    /// The same for bytes in memory.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn from_bytes(bytes: Vec<u8>, key: &str) -> Result<Self> {
        Self::of(Bytes::Memory(bytes), key)
    }

    fn of(bytes: Bytes, key: &str) -> Result<Self> {
        let length = bytes.length()?;
        let trailer_at = length
            .checked_sub(TRAILER_BYTES as u64)
            .filter(|at| *at >= MAGIC.len() as u64)
            .ok_or_else(|| damaged("it is too short"))?;
        if bytes.read(0, MAGIC.len())? != MAGIC {
            return Err(damaged("it does not begin as such a file does"));
        }
        let trailer = bytes.read(trailer_at, TRAILER_BYTES)?;
        let (mut fields, end) = (Fields(&trailer), &trailer[TRAILER_BYTES - MAGIC.len()..]);
        if end != MAGIC {
            return Err(damaged("it does not end as such a file does; it was not finished, or was cut"));
        }
        let (index_at, count, tail_bytes) = (fields.u64(), fields.u64(), fields.u64());
        let crc = fields.u32();
        let index_bytes = count.checked_mul(ENTRY_BYTES as u64);
        let whole = index_bytes.and_then(|index| index_at.checked_add(index)?.checked_add(tail_bytes));
        if whole != Some(trailer_at) || tail_bytes > TAIL_BYTES {
            return Err(damaged("its parts do not fill it"));
        }
        let described = bytes.read(index_at, (trailer_at - index_at) as usize)?;
        if checksum(&described) != crc {
            return Err(damaged("its index does not have its checksum"));
        }
        let (index, tail) = described.split_at(count as usize * ENTRY_BYTES);
        let tail: Tail = serde_json::from_slice(tail).map_err(|error| damaged(&error.to_string()))?;
        if tail.key != key {
            return Err(damaged("it was made of something else"));
        }
        let entries = entries(index, index_at)?;
        let mut survey = tail.survey;
        survey.account.languages = tail.languages;
        Ok(Self { bytes, entries, samples_sha256: tail.samples_sha256, survey })
    }

    /// Reads every record and compares it with its checksum, on all cores.
    ///
    /// # Errors
    /// [`Error::Store`] at one that differs.
    pub fn verify(&self) -> Result<()> {
        self.entries.par_chunks(CHECKED).try_for_each(|entries| {
            let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
            let bytes = self.bytes.read(first.at, (last.at + u64::from(last.bytes) - first.at) as usize)?;
            entries.iter().try_for_each(|entry| {
                let from = (entry.at - first.at) as usize;
                checked(&bytes[from..from + entry.bytes as usize], entry).map(drop)
            })
        })
    }

    /// How many examples there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Tokens of an example.
    ///
    /// # Panics
    /// When there is no such example, as an index into a slice.
    pub fn tokens(&self, at: usize) -> usize {
        self.entries[at].tokens as usize
    }

    /// Tokens of an example that are predicted and trained: all that are trained but a first one.
    ///
    /// # Panics
    /// As [`Store::tokens`].
    pub fn targets(&self, at: usize) -> usize {
        self.entries[at].targets as usize
    }

    /// The row of an example.
    ///
    /// # Panics
    /// As [`Store::tokens`].
    pub fn row(&self, at: usize) -> u64 {
        self.entries[at].row
    }

    /// See [`Example::group`].
    ///
    /// # Panics
    /// As [`Store::tokens`].
    pub fn group(&self, at: usize) -> u64 {
        self.entries[at].group
    }

    /// What two examples have in common only where they have the same hash: its first eight bytes.
    ///
    /// # Panics
    /// As [`Store::tokens`].
    pub fn key(&self, at: usize) -> u64 {
        self.entries[at].key
    }

    /// An example.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    ///
    /// # Panics
    /// As [`Store::tokens`].
    pub fn get(&self, at: usize) -> Result<Example> {
        let entry = &self.entries[at];
        let bytes = self.bytes.read(entry.at, entry.bytes as usize)?;
        let example =
            record::read(checked(&bytes, entry)?).ok_or_else(|| damaged("a record is not an example"))?;
        Ok(Example { row: entry.row, group: entry.group, ..example })
    }

    /// What became of the rows; the path is that of the time.
    pub fn survey(&self) -> &Survey {
        &self.survey
    }

    /// SHA-256 over the hashes of all examples, as text in their order.
    pub fn samples_sha256(&self) -> &str {
        &self.samples_sha256
    }
}

/// The entries of an index, whose records lie one behind the other up to `end`.
fn entries(index: &[u8], end: u64) -> Result<Vec<Entry>> {
    let mut at = MAGIC.len() as u64;
    let mut entries = Vec::with_capacity(index.len() / ENTRY_BYTES);
    for bytes in index.chunks_exact(ENTRY_BYTES) {
        let mut fields = Fields(bytes);
        let (bytes, crc, tokens, targets) = (fields.u32(), fields.u32(), fields.u32(), fields.u32());
        let (row, group, key) = (fields.u64(), fields.u64(), fields.u64());
        entries.push(Entry { at, bytes, crc, tokens, targets, row, group, key });
        at += u64::from(bytes);
    }
    if at == end { Ok(entries) } else { Err(damaged("its records do not fill it")) }
}

fn checked<'b>(bytes: &'b [u8], entry: &Entry) -> Result<&'b [u8]> {
    if checksum(bytes) == entry.crc { Ok(bytes) } else { Err(damaged("a record does not have its checksum")) }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

impl Bytes {
    fn length(&self) -> Result<u64> {
        match self {
            Self::File(file) => {
                let metadata = file.metadata().map_err(|error| damaged(&error.to_string()))?;
                if metadata.is_file() { Ok(metadata.len()) } else { Err(damaged("it is not a file")) }
            }
            Self::Memory(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// `length` bytes, which were found to lie within the file.
    fn read(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        match self {
            Self::File(file) => {
                let mut bytes = vec![0; length];
                read_at(file, &mut bytes, at).map_err(|error| damaged(&error.to_string()))?;
                Ok(bytes)
            }
            Self::Memory(bytes) => {
                let from = usize::try_from(at).ok();
                let part = from.and_then(|from| bytes.get(from..from.checked_add(length)?));
                part.map(<[u8]>::to_vec).ok_or_else(|| damaged("it ends before its end"))
            }
        }
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, bytes, at)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[read..];
        at += read as u64;
    }
    Ok(())
}

/// Numbers of fixed width, the lowest byte first; 0 where the bytes end, which a length that was checked excludes.
struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.next())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.next())
    }

    fn next<const N: usize>(&mut self) -> [u8; N] {
        let Some((first, rest)) = self.0.split_first_chunk() else { return [0; N] };
        self.0 = rest;
        *first
    }
}
