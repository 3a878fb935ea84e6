//! The files of a run, read back: everything that its report and card are made of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use descant_evaluate::{Evaluations, Samples};
use descant_train::fp8::Deviation;
use descant_train::{StepMetrics, StepTiming};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::samples::{Sample, samples_of};
use crate::experts::Loads;
use crate::observe::GRADIENTS;
use crate::questions::suites_of;
use crate::run_folder::EXPERTS;
use crate::words::listed;

/// Longest file that is read.
const BYTES: u64 = 1 << 30;

/// Replies to prompts that asked for nothing.
pub(crate) struct Plain {
    /// On both sides.
    pub(crate) pairs: u64,
    /// Equal, byte for byte.
    pub(crate) same: u64,
}

impl Plain {
    fn count(before: &Samples, after: &Samples) -> Self {
        let pairs = before.replies.iter().filter(|(key, _)| !key.asked);
        let pairs: Vec<bool> =
            pairs.filter_map(|(key, was)| Some(was.ids == after.replies.get(key)?.ids)).collect();
        Self { pairs: pairs.len() as u64, same: pairs.iter().filter(|same| **same).count() as u64 }
    }
}

/// A line of `gradients.jsonl`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct GradientLine {
    pub(crate) step: u64,
    /// By site.
    pub(crate) norms: BTreeMap<String, f32>,
}

/// A run folder's files. What is not there yet is absent, and its part of the page is left out.
pub(crate) struct RunFiles {
    pub(crate) folder: PathBuf,
    /// Settings as TOML.
    pub(crate) config: String,
    /// Name and value of everything that the run's bytes depend on.
    pub(crate) identity: Vec<(String, String)>,
    pub(crate) manifest: Json,
    pub(crate) data: Json,
    pub(crate) steps: Vec<StepMetrics>,
    pub(crate) timings: Vec<StepTiming>,
    /// The gradient by site, at some steps.
    pub(crate) gradients: Vec<GradientLine>,
    /// Tokens by expert, before and after.
    pub(crate) experts: Option<Loads>,
    /// Only of a run that is done.
    pub(crate) summary: Option<Json>,
    pub(crate) evaluations: Option<Evaluations>,
    /// The first replies of each effort.
    pub(crate) samples: Vec<Sample>,
    /// Replies where nothing was asked, against the base's.
    pub(crate) plain: Option<Plain>,
    /// SHA-256 of files that the identity does not name: label and value.
    pub(crate) hashes: Vec<(String, String)>,
}

impl RunFiles {
    /// Reads a folder.
    ///
    /// # Errors
    /// It is not a run's, or a file of it is damaged.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let bytes = |name: &str| -> Result<Option<Vec<u8>>> {
            let path = folder.join(name);
            path.exists().then(|| descant_files::read_bounded(&path, BYTES)).transpose().map_err(Into::into)
        };
        let json = |name: &str| -> Result<Option<Json>> {
            let parse = |bytes: Vec<u8>| serde_json::from_slice(&bytes);
            bytes(name)?.map(parse).transpose().with_context(|| folder.join(name).display().to_string())
        };
        let Some(config) = bytes("config.toml")? else {
            return Err(anyhow!("{} is not a run folder: it has no config.toml", folder.display()));
        };
        let identity: Vec<(String, String)> =
            json("identity.json")?.map(serde_json::from_value).transpose()?.unwrap_or_default();
        let evaluations = match json("evaluation.json")? {
            // Version 1 knew five languages by their commonest words; its counts mean something else.
            Some(json) if json["schema_version"] == 1 => None,
            Some(json) => Some(
                Evaluations::from_json(json)
                    .with_context(|| folder.join("evaluation.json").display().to_string())?,
            ),
            None => None,
        };
        let samples = |name: &str| -> Result<Option<Samples>> {
            let path = folder.join(name);
            Ok(path.exists().then(|| Samples::read(&path)).transpose()?)
        };
        let (before, after) = (samples("samples-before.jsonl")?, samples("samples-after.jsonl")?);
        let config = String::from_utf8_lossy(&config).into_owned();
        let shown = shown(&config);
        let samples = before.as_ref().map(|before| {
            // Where the questions are elsewhere, replies are shown by their ids.
            let suites = suites_of(before, &[]).unwrap_or_default();
            samples_of(&suites, before, after.as_ref(), shown)
        });
        let mut hashes = Vec::new();
        let adapter = folder.join("adapter").join("adapter_model.safetensors");
        if adapter.is_file() {
            hashes.push(("this adapter".to_owned(), descant_files::sha256_file(&adapter)?));
        }
        for (label, samples) in [("replies before", &before), ("replies after", &after)] {
            hashes.extend(samples.as_ref().map(|samples| (label.to_owned(), samples.sha256.clone())));
        }
        Ok(Self {
            folder: folder.to_owned(),
            config,
            identity,
            manifest: json("manifest.json")?.unwrap_or_default(),
            data: json("data.json")?.unwrap_or_default(),
            steps: lines(bytes("metrics.jsonl")?),
            timings: lines(bytes("timing.jsonl")?),
            gradients: lines(bytes(GRADIENTS)?),
            experts: json(EXPERTS)?
                .map(serde_json::from_value)
                .transpose()
                .with_context(|| folder.join(EXPERTS).display().to_string())?,
            summary: json("summary.json")?,
            evaluations,
            plain: before.as_ref().zip(after.as_ref()).map(|(before, after)| Plain::count(before, after)),
            samples: samples.unwrap_or_default(),
            hashes,
        })
    }

    /// A value of the settings, as they write it, without quotes.
    pub(crate) fn setting(&self, key: &str) -> Option<String> {
        let table: toml::Table = toml::from_str(&self.config).ok()?;
        let mut value = toml::Value::Table(table);
        for part in key.split('.') {
            value = value.get(part)?.clone();
        }
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    /// In which numbers steps multiplied with experts, which products were in bf16 all the same, and how far such a step is
    /// from one in bf16; `None` where all were in bf16.
    pub(crate) fn experts_numbers(&self) -> Option<String> {
        let numbers = self.setting("train.experts").filter(|numbers| numbers != "bf16")?;
        let names = self.summary.as_ref().and_then(|summary| summary["experts_in_bf16"].as_array());
        let names = names.into_iter().flatten().filter_map(Json::as_str).map(str::to_owned);
        let names: Vec<String> = names.collect();
        let but = if names.is_empty() { String::new() } else { format!(", but for {}", listed(&names)) };
        let measured = self.summary.as_ref().map(|summary| summary["experts_deviation"].clone());
        let measured = measured.and_then(|figures| serde_json::from_value::<Deviation>(figures).ok());
        let measured = measured.map_or_else(String::new, |figures| format!("; {}", figures.words()));
        Some(format!("{numbers} in training steps{but}{measured}"))
    }

    /// A value of the identity.
    pub(crate) fn identity(&self, name: &str) -> Option<&str> {
        self.identity.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A number of the summary.
    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        self.summary.as_ref()?.get(key)?.as_f64()
    }

    /// How the run is called: its folder's name.
    pub(crate) fn name(&self) -> String {
        self.folder.display().to_string()
    }
}

/// How many replies are shown at each effort.
fn shown(config: &str) -> usize {
    let table: Option<toml::Table> = toml::from_str(config).ok();
    let samples = table.and_then(|table| table.get("evaluate")?.get("samples")?.as_integer());
    samples.and_then(|n| usize::try_from(n).ok()).unwrap_or(4)
}

/// Whole lines of a log that may be growing; what is none of ours is passed over.
fn lines<T: DeserializeOwned>(bytes: Option<Vec<u8>>) -> Vec<T> {
    let bytes = bytes.unwrap_or_default();
    bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}
