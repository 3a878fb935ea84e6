//! A file of samples as it grows, a batch at a time, each brought to the disk.

use std::path::Path;

use descant_files::Appender;

use super::header::Header;
use super::lines::{Batch, Line, Loss, Reply, line};
use super::read::{BYTES, Samples};
use crate::error::Result;

/// A file of samples that grows; without a file, samples that are only kept in memory.
#[derive(Debug)]
pub struct Writer {
    file: Option<Appender>,
    samples: Samples,
}

impl Writer {
    /// A new file with this header, or the one that is there, whose header must be the same.
    ///
    /// # Errors
    /// The file cannot be read or written, or was made otherwise.
    pub fn open(path: &Path, header: &Header) -> Result<Self> {
        let there = path.exists().then(|| descant_files::read_bounded(path, BYTES)).transpose()?;
        // Without a whole first line nothing is in it.
        if let Some(bytes) = there.filter(|bytes| bytes.contains(&b'\n')) {
            let (samples, _) = Samples::from_bytes(path, &bytes)?;
            header.check(path, &samples.header)?;
            // Replies of a batch that was not finished are asked again, so that the file comes out as if it had been.
            let whole = complete(&bytes);
            let (samples, _) = Samples::from_bytes(path, &bytes[..whole])?;
            return Ok(Self { file: Some(Appender::resume(path, whole as u64)?), samples });
        }
        if path.exists() {
            descant_files::remove(path)?;
        }
        let mut file = Appender::create(path)?;
        file.append(&line(header))?;
        file.sync()?;
        Ok(Self { file: Some(file), samples: Samples::new(path, header) })
    }

    /// Samples that no file keeps.
    pub fn in_memory(header: &Header) -> Self {
        Self { file: None, samples: Samples::new(Path::new(""), header) }
    }

    fn append(&mut self, text: &str) -> Result<()> {
        if let Some(file) = &mut self.file {
            file.append(text)?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(self.file.as_ref().map_or(Ok(()), Appender::sync)?)
    }

    /// What is in it.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Adds a batch of replies, and brings it to the disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(&mut self, replies: Vec<Reply>, new_tokens: usize, seconds: f64) -> Result<()> {
        let batch =
            Batch { batch: self.samples.batches.len() as u64, replies: replies.len(), new_tokens, seconds };
        for reply in replies {
            self.append(&line(&reply))?;
            self.samples.replies.insert(reply.key.clone(), reply);
        }
        self.append(&line(&batch))?;
        self.samples.batches.push(batch);
        self.sync()
    }

    /// Adds a row's loss.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add_loss(&mut self, loss: Loss) -> Result<()> {
        self.append(&line(&loss))?;
        self.samples.losses.insert(loss.id.clone(), loss);
        Ok(())
    }

    /// Brings everything to the disk, and gives what is in the file, as if it had been read.
    ///
    /// # Errors
    /// It cannot be written, or not be read back.
    pub fn finish(self) -> Result<Samples> {
        self.sync()?;
        if self.file.is_none() {
            return Ok(self.samples);
        }
        let path = self.samples.path;
        drop(self.file);
        Samples::read(&path)
    }
}

/// How many bytes are header, finished batches and losses: up to the end of the last line that is not a reply.
fn complete(bytes: &[u8]) -> usize {
    let mut at = 0;
    let mut end = 0;
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        at += line.len();
        let is_whole = line.ends_with(b"\n");
        let is_reply = || matches!(serde_json::from_slice(line), Ok(Line::Reply(_)));
        if is_whole && (number == 0 || !is_reply()) {
            end = at;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::super::header::AskedHow;
    use super::super::lines::Key;
    use super::*;

    fn header() -> Header {
        let settings = AskedHow {
            efforts: vec!["low".into()],
            replies: 1,
            temperature: 0.0,
            top_p: 1.0,
            seed: 3407,
            max_new_tokens: 10,
            languages: Vec::new(),
        };
        Header { model: "m".into(), ..Header::new(settings) }
    }

    fn reply(question: &str, text: &str) -> Reply {
        let key = Key { question: question.into(), effort: "low".into(), asked: false, sample: 0 };
        Reply { key, ids: vec![1, 2], stop: "return".into(), text: text.into() }
    }

    #[test]
    fn a_half_line_is_dropped_and_the_rest_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.jsonl");
        let mut writer = Writer::open(&path, &header()).unwrap();
        writer.add(vec![reply("a", "x")], 2, 0.5).unwrap();
        drop(writer);
        let mut bytes = std::fs::read(&path).unwrap();
        let whole = bytes.len();
        bytes.extend(format!("{}\n", line(&reply("of a batch that was cut", "z"))).bytes());
        bytes.extend(br#"{"question":"b","eff"#);
        descant_files::write_atomic(&path, &bytes).unwrap();
        let mut writer = Writer::open(&path, &header()).unwrap();
        assert_eq!(writer.samples().replies.len(), 1);
        assert_eq!(std::fs::metadata(&path).unwrap().len() as usize, whole);
        writer.add(vec![reply("b", "y")], 2, 0.5).unwrap();
        let samples = writer.finish().unwrap();
        assert_eq!((samples.replies.len(), samples.batches.len(), samples.repeated), (2, 2, 0));
        assert_eq!(samples.tokens_per_second(), Some(4.0));
    }

    #[test]
    fn another_header_is_refused_by_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.jsonl");
        Writer::open(&path, &header()).unwrap();
        let mut other = header();
        other.settings.seed = 1;
        let error = Writer::open(&path, &other).unwrap_err().to_string();
        assert!(error.contains("another `settings.seed`: 3407; now it is 1"), "{error}");
    }

    #[test]
    fn the_first_of_two_counts_and_damage_has_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.jsonl");
        let lines = [line(&header()), line(&reply("a", "first")), line(&reply("a", "second"))];
        descant_files::write_atomic(&path, (lines.join("\n") + "\n").as_ref()).unwrap();
        let samples = Samples::read(&path).unwrap();
        assert_eq!((samples.repeated, samples.replies.values().next().unwrap().text.as_str()), (1, "first"));
        descant_files::write_atomic(&path, (lines.join("\n") + "\n{\"x\":1}\n").as_ref()).unwrap();
        assert!(Samples::read(&path).unwrap_err().to_string().contains("line 4: no reply, batch or loss"));
        descant_files::write_atomic(&path, b"{}\n").unwrap();
        assert!(Samples::read(&path).unwrap_err().to_string().contains("line 1: no header"));
    }
}
