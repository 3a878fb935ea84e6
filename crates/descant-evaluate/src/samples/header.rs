//! The first line of `samples.jsonl`: what was asked, of what, and how.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::error::{Error, Result};

/// Version of the file.
pub(super) const VERSION: u32 = 2;

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

    /// Refuses a file that was made otherwise. The first key that differs is named.
    pub(super) fn check(&self, path: &Path, there: &Self) -> Result<()> {
        let flat = |header: &Self| {
            let mut out = BTreeMap::new();
            flatten("", &serde_json::to_value(header).unwrap_or_default(), &mut out);
            out
        };
        let (here, there) = (flat(self), flat(there));
        let keys: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
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
