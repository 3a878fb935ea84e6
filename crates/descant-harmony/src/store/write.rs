//! Writes examples as they come, in one pass, and what was learned of the data set behind them.

use super::{ENTRY_BYTES, MAGIC, Tail, checksum, record};
use crate::digest::hex;
use crate::examples::prepare::{Example, Survey};
use flate2::Crc;
use sha2::{Digest, Sha256};
use std::io::{self, Write};

/// Bytes of an example's hash that are in the index.
const KEY_BYTES: usize = 8;

/// Writes the bytes that a [`Store`](super::Store) reads.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Bytes that are written.
    at: u64,
    index: Vec<u8>,
    hashes: Sha256,
    record: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        let at = MAGIC.len() as u64;
        Ok(Self { out, at, index: Vec::new(), hashes: Sha256::new(), record: Vec::new() })
    }

    /// Writes the next example.
    ///
    /// # Errors
    /// Those of `out`; an id, or a length, that has no place in the form.
    pub fn push(&mut self, example: &Example) -> io::Result<()> {
        self.record.clear();
        let written = record::write(example, &mut self.record);
        let small = |number: usize| u32::try_from(number).ok();
        let targets = example.mask.weights.iter().skip(1).filter(|weight| **weight > 0.0).count();
        let fields = small(self.record.len()).zip(small(example.ids.len())).filter(|_| written);
        let (Some((bytes, tokens)), Some(targets)) = (fields, small(targets)) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an id of more than 24 bits"));
        };
        self.out.write_all(&self.record)?;
        self.at += u64::from(bytes);
        for field in [bytes, checksum(&self.record), tokens, targets] {
            self.index.extend(field.to_le_bytes());
        }
        self.index.extend(example.row.to_le_bytes());
        self.index.extend(example.group.to_le_bytes());
        self.index.extend(&example.hash[..KEY_BYTES]);
        self.hashes.update(hex(&example.hash));
        Ok(())
    }

    /// Bytes that are written so far.
    pub fn bytes(&self) -> u64 {
        self.at
    }

    /// Writes what is behind the examples; `key` is what the file is made of, by whatever name the caller gives it.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(self, survey: &Survey, key: &str) -> io::Result<W> {
        let Self { mut out, at, index, hashes, .. } = self;
        let tail = Tail {
            key: key.to_owned(),
            samples_sha256: hex(&hashes.finalize()),
            survey: survey.clone(),
            languages: survey.account.languages.clone(),
        };
        let tail = serde_json::to_vec(&tail)?;
        let mut crc = Crc::new();
        for part in [&index, &tail] {
            out.write_all(part)?;
            crc.update(part);
        }
        for number in [at, (index.len() / ENTRY_BYTES) as u64, tail.len() as u64] {
            out.write_all(&number.to_le_bytes())?;
        }
        out.write_all(&crc.sum().to_le_bytes())?;
        out.write_all(MAGIC)?;
        out.flush()?;
        Ok(out)
    }
}
