//! What is trained on: `[data]`, its sources and its validation.

use std::path::PathBuf;

use descant_harmony::prepare::OnTooLong;
use descant_harmony::read::{Format, OnBadRow};
use descant_harmony::{Date, LossWeights, MaskPolicy, ViewPolicy};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::check_effort;

/// Largest share of the examples that may be validated on.
const MOST_SHARE: f64 = 0.5;

/// `[data]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Data {
    /// Training conversations: a file, or a repository as `hf://datasets/OWNER/NAME`. Empty if `sources` is set.
    pub(crate) path: PathBuf,
    /// Held-out prompts for the evaluation; empty for none.
    #[serde(deserialize_with = "named")]
    pub(crate) held_out: Option<PathBuf>,
    /// Format of the rows; detected from the first good row if absent.
    pub(crate) format: Option<Format>,
    /// What one training example is.
    pub(crate) views: ViewPolicy,
    /// Tokens that contribute to the loss.
    pub(crate) mask: MaskPolicy,
    /// What to do with a bad row.
    pub(crate) on_bad_row: OnBadRow,
    /// What to do with a row that is too long.
    pub(crate) too_long: OnTooLong,
    /// Date of the system message.
    pub(crate) date: String,
    /// Reasoning effort of rows that give none.
    pub(crate) effort: String,
    /// Validation examples, which are not trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) validation: Option<ValidationData>,
    /// Loss weight of the trained tokens of each channel.
    pub(crate) loss: LossWeights,
    /// Several data sets instead of `path`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) sources: Vec<Source>,
}

/// `data.validation`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum ValidationData {
    /// A share of the training examples.
    Share(f64),
    /// A data set of its own.
    File(PathBuf),
}

/// `[[data.sources]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    /// As `data.path`.
    pub(crate) path: PathBuf,
    /// How much of what is trained comes from it, beside the shares of the others; every row once when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) share: Option<f64>,
    /// As `data.format`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) format: Option<Format>,
}

/// `[validate]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Validate {
    /// Steps between evaluations.
    pub(crate) every: u64,
    /// Maximum number of validation examples.
    pub(crate) examples: usize,
    /// Stop after this many evaluations without a lower loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) patience: Option<u64>,
}

impl Default for Validate {
    fn default() -> Self {
        Self { every: 25, examples: 256, patience: None }
    }
}

/// A path, unless it is empty: so that `--set KEY=` takes back what a file names.
fn named<'de, D: Deserializer<'de>>(text: D) -> Result<Option<PathBuf>, D::Error> {
    let path = Option::<PathBuf>::deserialize(text)?;
    Ok(path.filter(|path| !path.as_os_str().is_empty()))
}

impl Default for Data {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            held_out: None,
            format: None,
            views: ViewPolicy::AllTurns,
            mask: MaskPolicy::Assistant,
            on_bad_row: OnBadRow::Fail,
            too_long: OnTooLong::Fail,
            date: "2025-08-05".into(),
            effort: "medium".into(),
            validation: None,
            loss: LossWeights::default(),
            sources: Vec::new(),
        }
    }
}

impl Data {
    /// Checks what types cannot say. The text names the key.
    pub(super) fn validate(&self) -> Result<(), String> {
        self.date()?;
        check_effort("data.effort", &self.effort)?;
        let loss = &self.loss;
        let weights = [("analysis", loss.analysis), ("commentary", loss.commentary), ("final", loss.final_)];
        for (channel, weight) in weights {
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(format!("data.loss.{channel} is {weight}; expected 0 or more"));
            }
        }
        if weights.iter().all(|(_, weight)| *weight == 0.0) {
            return Err("every weight of data.loss is 0; nothing would be trained".into());
        }
        match &self.validation {
            Some(ValidationData::Share(share)) if !(*share > 0.0 && *share <= MOST_SHARE) => {
                return Err(format!(
                    "data.validation is {share}; expected a file, or a share above 0 and up to {MOST_SHARE}"
                ));
            }
            Some(ValidationData::File(path)) if path.as_os_str().is_empty() => {
                return Err("data.validation is empty; expected a file, or a share such as 0.05".into());
            }
            _ => {}
        }
        self.check_sources()
    }

    fn check_sources(&self) -> Result<(), String> {
        if !self.sources.is_empty() && !self.path.as_os_str().is_empty() {
            return Err("data.path and data.sources are both set; name every data set in data.sources".into());
        }
        let shares: Vec<f64> = self.sources.iter().filter_map(|source| source.share).collect();
        if !shares.is_empty() && shares.len() < self.sources.len() {
            return Err("data.sources: some have a share and some have none; give all one, or none".into());
        }
        for (at, source) in self.sources.iter().enumerate() {
            if source.path.as_os_str().is_empty() {
                return Err(format!("data.sources[{at}].path is empty"));
            }
            if let Some(share) = source.share.filter(|share| !(share.is_finite() && *share > 0.0)) {
                return Err(format!("data.sources[{at}].share is {share}; expected a number above 0"));
            }
        }
        Ok(())
    }

    /// The data set of its own that is validated on.
    pub(crate) fn validation_file(&self) -> Option<&PathBuf> {
        match &self.validation {
            Some(ValidationData::File(path)) => Some(path),
            _ => None,
        }
    }

    /// The data sets that are trained on.
    pub(crate) fn sets(&self) -> Vec<Source> {
        if self.sources.is_empty() && !self.path.as_os_str().is_empty() {
            return vec![Source { path: self.path.clone(), share: None, format: self.format }];
        }
        let format = |source: &Source| Source { format: source.format.or(self.format), ..source.clone() };
        self.sources.iter().map(format).collect()
    }

    /// The date of system messages.
    pub(crate) fn date(&self) -> Result<Date, String> {
        let date = &self.date;
        date.parse().map_err(|_| format!("data.date is `{date}`; expected a day such as 2025-08-05"))
    }
}

impl Validate {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        for (key, value) in [
            ("every", self.every),
            ("examples", self.examples as u64),
            ("patience", self.patience.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(format!("validate.{key} is 0; expected at least 1"));
            }
        }
        Ok(())
    }
}
