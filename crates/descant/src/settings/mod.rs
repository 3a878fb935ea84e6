//! What a run may be told, as one typed TOML.
//!
//! Each section is a struct; [`layers`] puts file and `--set` together, [`keys`] finds the key that was meant.
//! `default.toml` is at once the embedded default and what `descant init` writes.

use std::path::PathBuf;

use descant_model::SiteKind;
use descant_train::TrainConfig;
use serde::{Deserialize, Serialize};

mod keys;
mod layers;

pub(crate) use layers::{Resolved, resolve};

/// The commented settings: embedded default and `descant init`.
pub(crate) const DEFAULT_TOML: &str = include_str!("default.toml");

/// All sections.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// The frozen base.
    pub(crate) model: Model,
    /// What it learns from.
    pub(crate) data: Data,
    /// What is trained.
    pub(crate) lora: Lora,
    /// How it is trained.
    pub(crate) train: TrainConfig,
    /// How the result is judged.
    pub(crate) evaluate: Evaluate,
    /// Where it goes.
    pub(crate) run: Run,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Model {
    /// Model directory.
    pub(crate) path: PathBuf,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub(crate) device: String,
}

/// `[data]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Data {
    /// Training conversations.
    pub(crate) path: PathBuf,
    /// Prompts to measure with.
    pub(crate) held_out: Option<PathBuf>,
    /// Tokens that carry loss.
    pub(crate) mask: Mask,
    /// What a bad row does.
    pub(crate) on_bad_row: OnBadRow,
    /// What a row that is too long does.
    pub(crate) too_long: TooLong,
    /// Date of the system message.
    pub(crate) date: String,
    /// Effort of rows that name none.
    pub(crate) effort: String,
}

/// Tokens that carry loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mask {
    /// Everything the assistant writes.
    Assistant,
    /// Its final messages.
    FinalOnly,
    /// All tokens.
    Everything,
}

/// What a bad row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnBadRow {
    /// Stops the run.
    Fail,
    /// Is left out and counted.
    Skip,
}

/// What a row longer than `train.max_sequence` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TooLong {
    /// Stops the run.
    Fail,
    /// Is left out and counted.
    Drop,
    /// Is cut after its last message that fits.
    Truncate,
}

/// `[lora]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Lora {
    /// Rank.
    pub(crate) r: usize,
    /// Scale times rank.
    pub(crate) alpha: f64,
    /// Modules that get an adapter.
    pub(crate) targets: Vec<String>,
}

/// `[evaluate]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Evaluate {
    /// Efforts to ask at.
    pub(crate) efforts: Vec<String>,
    /// Longest reply.
    pub(crate) max_new_tokens: usize,
    /// Prompts decoded together.
    pub(crate) batch: usize,
    /// Prompts to ask; all when absent.
    pub(crate) prompts: Option<usize>,
    /// Replies to keep at each effort.
    pub(crate) samples: usize,
}

/// `[run]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Run {
    /// Folder of the run; the next free one when absent.
    pub(crate) folder: Option<PathBuf>,
}

impl Default for Model {
    fn default() -> Self {
        Self { path: PathBuf::new(), device: "auto".into() }
    }
}

impl Default for Data {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            held_out: None,
            mask: Mask::Assistant,
            on_bad_row: OnBadRow::Fail,
            too_long: TooLong::Fail,
            date: "2025-08-05".into(),
            effort: "medium".into(),
        }
    }
}

impl Default for Lora {
    fn default() -> Self {
        let targets = [SiteKind::Query, SiteKind::Key, SiteKind::Value, SiteKind::Output];
        Self { r: 8, alpha: 16.0, targets: targets.map(|kind| kind.name().to_owned()).to_vec() }
    }
}

impl Default for Evaluate {
    fn default() -> Self {
        Self {
            efforts: EFFORTS.map(str::to_owned).to_vec(),
            max_new_tokens: 190,
            batch: 100,
            prompts: None,
            samples: 4,
        }
    }
}

/// Efforts that gpt-oss was trained with.
pub(crate) const EFFORTS: [&str; 3] = ["low", "medium", "high"];
/// Largest rank: beyond it an adapter is larger than what it adapts.
const MAX_RANK: usize = 4096;

impl Settings {
    /// Checks what types cannot say. The text names the key.
    pub(crate) fn validate(&self) -> Result<(), String> {
        for (key, path) in [("model.path", &self.model.path), ("data.path", &self.data.path)] {
            if path.as_os_str().is_empty() {
                return Err(format!("{key} is not set"));
            }
        }
        check_date(&self.data.date)?;
        check_effort("data.effort", &self.data.effort)?;
        check_range("lora.r", self.lora.r, MAX_RANK)?;
        if !(self.lora.alpha > 0.0 && self.lora.alpha.is_finite()) {
            return Err(format!("lora.alpha is {}; expected a positive number", self.lora.alpha));
        }
        self.check_targets()?;
        self.train.validate()?;
        if self.evaluate.efforts.is_empty() {
            return Err("evaluate.efforts is empty; expected at least one effort".into());
        }
        for (at, effort) in self.evaluate.efforts.iter().enumerate() {
            check_effort("evaluate.efforts", effort)?;
            if self.evaluate.efforts[..at].contains(effort) {
                return Err(format!("evaluate.efforts names `{effort}` twice"));
            }
        }
        check_range("evaluate.max_new_tokens", self.evaluate.max_new_tokens, 1 << 20)?;
        check_range("evaluate.batch", self.evaluate.batch, 1 << 16)?;
        if let Some(prompts) = self.evaluate.prompts {
            check_range("evaluate.prompts", prompts, usize::MAX)?;
        }
        Ok(())
    }

    fn check_targets(&self) -> Result<(), String> {
        let names = SiteKind::ALL.map(SiteKind::name).join(", ");
        if self.lora.targets.is_empty() {
            return Err(format!("lora.targets is empty; expected some of {names}"));
        }
        for (at, target) in self.lora.targets.iter().enumerate() {
            if SiteKind::from_name(target).is_none() {
                return Err(format!("lora.targets has `{target}`; expected some of {names}"));
            }
            if self.lora.targets[..at].contains(target) {
                return Err(format!("lora.targets names `{target}` twice"));
            }
        }
        Ok(())
    }
}

fn check_range(key: &str, value: usize, most: usize) -> Result<(), String> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(match most {
        usize::MAX => format!("{key} is {value}; expected at least 1"),
        most => format!("{key} is {value}; expected 1 to {most}"),
    })
}

/// Checks that an effort is one the model knows.
pub(crate) fn check_effort(key: &str, effort: &str) -> Result<(), String> {
    if EFFORTS.contains(&effort) {
        return Ok(());
    }
    Err(format!("{key} is `{effort}`; expected low, medium or high"))
}

/// Checks the form YYYY-MM-DD.
fn check_date(date: &str) -> Result<(), String> {
    let parsed = date.parse::<toml::value::Datetime>().ok();
    match parsed {
        Some(toml::value::Datetime { date: Some(_), time: None, offset: None }) => Ok(()),
        _ => Err(format!("data.date is `{date}`; expected a day such as 2025-08-05")),
    }
}

#[cfg(test)]
mod tests;
