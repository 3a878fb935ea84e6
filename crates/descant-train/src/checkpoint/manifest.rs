//! `manifest.json`: what makes a folder a checkpoint.
//!
//! A line of JSON and a line with its SHA-256, so that a flipped bit of the manifest itself is seen too.

use serde::{Deserialize, Serialize};

use super::defect::Defect;
use super::form::{FORMAT, Identity, LogLengths};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format: u64,
    pub(super) step: u64,
    version: String,
    identity: Identity,
    pub(super) logs: LogLengths,
    files: Vec<File>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    bytes: u64,
    sha256: String,
}

impl Manifest {
    pub(super) fn new(step: u64, identity: &Identity, logs: LogLengths, files: &[(&str, Vec<u8>)]) -> Self {
        let file = |(name, bytes): &(&str, Vec<u8>)| File {
            name: (*name).to_owned(),
            bytes: bytes.len() as u64,
            sha256: descant_files::sha256(bytes),
        };
        Self {
            format: u64::from(FORMAT),
            step,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            identity: identity.clone(),
            logs,
            files: files.iter().map(file).collect(),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let line = serde_json::to_string(self).expect("a struct of texts and numbers is JSON");
        format!("{line}\n{}\n", descant_files::sha256(line.as_bytes())).into_bytes()
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Defect> {
        let wrong = |reason: &str| Defect::Manifest(reason.to_owned());
        let text = std::str::from_utf8(bytes).map_err(|e| wrong(&e.to_string()))?;
        let mut lines = text.split('\n');
        let (Some(line), Some(sum), Some(""), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(wrong("it is not two lines"));
        };
        if descant_files::sha256(line.as_bytes()) != sum {
            return Err(wrong("its SHA-256 is not the one below it"));
        }
        // Its own sum holds, so this is what somebody wrote; a newer somebody may have written more.
        let value: serde_json::Value = serde_json::from_str(line).map_err(|e| wrong(&e.to_string()))?;
        let found = value["format"].as_u64().ok_or_else(|| wrong("it names no format"))?;
        if found != u64::from(FORMAT) {
            return Err(Defect::Format { found, known: FORMAT });
        }
        serde_json::from_value(value).map_err(|e| wrong(&e.to_string()))
    }

    /// Whether `bytes` are the file's.
    pub(super) fn check(&self, name: &str, bytes: &[u8]) -> Result<(), Defect> {
        let file = self.files.iter().find(|file| file.name == name);
        let file = file.ok_or_else(|| Defect::Unlisted { file: name.to_owned() })?;
        if file.bytes != bytes.len() as u64 {
            let (expected, actual) = (file.bytes, bytes.len() as u64);
            return Err(Defect::Length { file: name.to_owned(), expected, actual });
        }
        if file.sha256 != descant_files::sha256(bytes) {
            return Err(Defect::Hash { file: name.to_owned() });
        }
        Ok(())
    }

    /// What of the run's identity is not as here.
    pub(super) fn differences(&self, here: &Identity) -> Vec<String> {
        differences(&self.identity, here)
    }
}

/// What of two identities differs, for people: name, value there, value here.
pub fn differences(there: &Identity, here: &Identity) -> Vec<String> {
    let value = |of: &Identity, name: &str| {
        of.iter().find(|(n, _)| n == name).map_or_else(|| "not set".to_owned(), |(_, v)| v.clone())
    };
    let mut names: Vec<&str> = there.iter().map(|(name, _)| name.as_str()).collect();
    for (name, _) in here {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let differs = |name: &&str| value(there, name) != value(here, name);
    let told = |name: &str| format!("{name}: {} there, {} now", value(there, name), value(here, name));
    names.into_iter().filter(differs).map(told).collect()
}
