//! `samples.jsonl`: the header, every reply, what decoding took, and losses. Every figure comes from here.
//!
//! Grows a batch at a time, each brought to the disk, so that an evaluation that is broken off continues where it was.
//! A half last line is dropped on reading.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use descant_files::Appender;
use descant_harmony::{TextEncoder as _, Tokenizer};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::error::{Error, Result};

/// Version of the file.
const VERSION: u32 = 2;
/// Largest file that is read.
const BYTES: u64 = 1 << 32;

/// A suite that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its name, or the path of its file.
    pub name: String,
    /// SHA-256 of its file.
    pub sha256: String,
    /// Questions that are asked of it.
    pub questions: usize,
}

/// How was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AskedHow {
    /// Efforts.
    pub efforts: Vec<String>,
    /// Replies to each prompt.
    #[serde(default = "one", alias = "samples")]
    pub replies: u32,
    /// 0 is greedy.
    #[serde(default)]
    pub temperature: f64,
    /// Share of probability that is drawn from.
    #[serde(default = "everything")]
    pub top_p: f64,
    /// Seed of all replies.
    #[serde(default)]
    pub seed: u64,
    /// Longest reply.
    #[serde(default)]
    pub max_new_tokens: usize,
    /// Codes of the languages that the judge is narrowed to; empty for all.
    #[serde(default)]
    pub languages: Vec<String>,
}

fn one() -> u32 {
    1
}

fn everything() -> f64 {
    1.0
}

/// The first line: what was asked, of what, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// 2.
    pub v: u32,
    /// `samples`.
    pub kind: String,
    /// The model as settings name it.
    #[serde(default)]
    pub model: String,
    /// The adapter's folder, if there is one.
    #[serde(default)]
    pub adapter: Option<String>,
    /// SHA-256 of the adapter's weights.
    #[serde(default)]
    pub adapter_sha256: Option<String>,
    /// SHA-256 of the chat template.
    #[serde(default)]
    pub template_sha256: String,
    /// SHA-256 of `tokenizer.json`; empty where the replies are text only.
    #[serde(default)]
    pub tokenizer_sha256: String,
    /// Date of the system message.
    #[serde(default)]
    pub date: String,
    /// What was asked.
    #[serde(default)]
    pub suites: Vec<Source>,
    /// The one suite, in files that say no more of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// How.
    pub settings: AskedHow,
}

impl Header {
    /// Version and kind of a new file.
    pub fn new(settings: AskedHow) -> Self {
        Self {
            v: VERSION,
            kind: "samples".into(),
            model: String::new(),
            adapter: None,
            adapter_sha256: None,
            template_sha256: String::new(),
            tokenizer_sha256: String::new(),
            date: String::new(),
            suites: Vec::new(),
            suite: None,
            settings,
        }
    }

    /// Names of the suites that were asked.
    pub fn suite_names(&self) -> Vec<&str> {
        let listed = self.suites.iter().map(|suite| suite.name.as_str());
        listed.chain(self.suite.as_deref()).collect()
    }

    /// Refuses a file that was made otherwise. The first key that differs is named.
    fn check(&self, path: &Path, there: &Self) -> Result<()> {
        let flat = |header: &Self| {
            let mut out = BTreeMap::new();
            flatten("", &serde_json::to_value(header).unwrap_or_default(), &mut out);
            out
        };
        let (here, there) = (flat(self), flat(there));
        let keys: std::collections::BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        for key in keys {
            let (here, there) =
                (here.get(key).cloned().unwrap_or_default(), there.get(key).cloned().unwrap_or_default());
            if here != there {
                return Err(Error::OtherHeader { path: path.to_owned(), key: key.clone(), there, here });
            }
        }
        Ok(())
    }
}

fn flatten(name: &str, json: &Json, out: &mut BTreeMap<String, String>) {
    match json {
        Json::Object(map) => {
            for (key, value) in map {
                flatten(&if name.is_empty() { key.clone() } else { format!("{name}.{key}") }, value, out);
            }
        }
        other => {
            out.insert(name.to_owned(), other.to_string());
        }
    }
}

/// Which reply.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Id of the question.
    pub question: String,
    /// Effort of the prompt.
    pub effort: String,
    /// Whether the prompt asked for a reasoning language.
    pub asked: bool,
    /// Number of the reply, from 0.
    pub sample: u32,
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Which.
    #[serde(flatten)]
    pub key: Key,
    /// The ids behind the prompt, stop id included, without padding.
    #[serde(default)]
    pub ids: Vec<u32>,
    /// `return`, `call`, `endoftext` or `limit`.
    #[serde(default)]
    pub stop: String,
    /// The same for people, special tokens shown.
    #[serde(default)]
    pub text: String,
}

/// What decoding a batch took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Number of the batch.
    pub batch: u64,
    /// Replies in it.
    pub replies: usize,
    /// New tokens in it.
    pub new_tokens: usize,
    /// Seconds of decoding, prefill included.
    pub seconds: f64,
}

/// Nats and tokens of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Nats {
    /// Sum of the negative log-probabilities.
    pub nats: f64,
    /// Tokens; for `all`, which is weighed, the sum of the weights.
    pub tokens: f64,
}

/// The token that chooses the language.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct First {
    /// Its negative log-probability.
    pub nats: f64,
    /// 1 where no token is more likely.
    pub rank: u64,
}

/// The loss on one held-out row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Id of the question.
    #[serde(rename = "loss")]
    pub id: String,
    /// By channel: `analysis`, `final`, `commentary`, `format`, and `all` with the trained weights.
    pub channels: BTreeMap<String, Nats>,
    /// Of the first token of the reasoning; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<First>,
}

/// Any line behind the header.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Reply(Reply),
    Batch(Batch),
    Loss(Loss),
}

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
    fn from_bytes(path: &Path, bytes: &[u8]) -> Result<(Self, u64)> {
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

    fn new(path: &Path, header: &Header) -> Self {
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

impl Reply {
    /// Its ids: those that were kept, else those of its text.
    ///
    /// # Errors
    /// The tokenizer fails on the text.
    pub fn ids(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        if self.ids.is_empty() { Ok(tokenizer.encode_rendered(&self.text)?) } else { Ok(self.ids.clone()) }
    }
}

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

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers are JSON")
}

#[cfg(test)]
mod tests {
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
