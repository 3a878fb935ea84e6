//! A file of samples as it is read: everything in it, each reply and loss once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::header::{Header, VERSION};
use super::lines::{Batch, Key, Line, Loss, Reply};
use crate::error::{Error, Result};

/// Largest file that is read.
pub(super) const BYTES: u64 = 1 << 32;

/// A file of samples.
#[derive(Debug, Clone)]
pub struct Samples {
    /// Its path.
    pub path: PathBuf,
    /// Its first line.
    pub header: Header,
    /// Every reply.
    pub replies: BTreeMap<Key, Reply>,
    /// Every batch.
    pub batches: Vec<Batch>,
    /// Losses by question.
    pub losses: BTreeMap<String, Loss>,
    /// Lines of a reply or loss that was there already; the first counts.
    pub repeated: u64,
    /// SHA-256 of the file.
    pub sha256: String,
}

impl Samples {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or a line is none of a samples file. A half last line is dropped.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = descant_files::read_bounded(path, BYTES)?;
        Self::from_bytes(path, &bytes).map(|(samples, _)| samples)
    }

    /// The samples, and how many bytes of the file count.
    pub(super) fn from_bytes(path: &Path, bytes: &[u8]) -> Result<(Self, u64)> {
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let wrong = |line: usize, reason: String| Error::Samples { path: path.to_owned(), line, reason };
        let mut lines = (1..).zip(bytes[..whole].split(|byte| *byte == b'\n'));
        let (_, first) = lines.next().unwrap_or((1, &[]));
        let header: Header =
            serde_json::from_slice(first).map_err(|error| wrong(1, format!("no header: {error}")))?;
        if header.v != VERSION || header.kind != "samples" {
            return Err(wrong(
                1,
                format!(
                    "version {} of `{}`; this program reads version {VERSION} of `samples`",
                    header.v, header.kind
                ),
            ));
        }
        let mut samples = Self { sha256: descant_files::sha256(bytes), ..Self::new(path, &header) };
        for (number, line) in lines.filter(|(_, line)| !line.trim_ascii().is_empty()) {
            let line = serde_json::from_slice(line)
                .map_err(|_| wrong(number, "no reply, batch or loss".to_owned()))?;
            match line {
                Line::Batch(batch) => samples.batches.push(batch),
                Line::Reply(reply) if samples.replies.contains_key(&reply.key) => samples.repeated += 1,
                Line::Reply(reply) => _ = samples.replies.insert(reply.key.clone(), reply),
                Line::Loss(loss) if samples.losses.contains_key(&loss.id) => samples.repeated += 1,
                Line::Loss(loss) => _ = samples.losses.insert(loss.id.clone(), loss),
            }
        }
        Ok((samples, whole as u64))
    }

    pub(super) fn new(path: &Path, header: &Header) -> Self {
        Self {
            path: path.to_owned(),
            header: header.clone(),
            replies: BTreeMap::new(),
            batches: Vec::new(),
            losses: BTreeMap::new(),
            repeated: 0,
            sha256: String::new(),
        }
    }

    /// Tokens a second over all batches, where any took time.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let seconds: f64 = self.batches.iter().map(|batch| batch.seconds).sum();
        let tokens: usize = self.batches.iter().map(|batch| batch.new_tokens).sum();
        (seconds > 0.0).then(|| tokens as f64 / seconds)
    }
}
