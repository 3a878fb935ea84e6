//! The settings of a run, as one typed TOML.
//!
//! Each section is a struct; [`layers`] puts file and `--set` together, [`keys`] finds the key that was meant.
//! `default.toml` is the embedded default; [`init`] makes of it what `descant init` writes.

use std::path::PathBuf;

use descant_evaluate::Language;
use descant_lora::LoraConfig;
use descant_train::checkpoint::KEEP_AT_LEAST;
use descant_train::{GuardConfig, TrainConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod data;
mod init;
mod keys;
mod layers;
mod memory;
mod recipes;
mod schema;

pub(crate) use data::{Data, Source, Validate, ValidationData};
pub(crate) use init::init_toml;
pub(crate) use layers::{EMBEDDED_MODEL, EMBEDDED_MODEL_NAME, RECIPE, Resolved, resolve, resolve_text};
pub(crate) use memory::{Limit, Memory, bytes};
pub(crate) use recipes::Recipe;
pub(crate) use schema::schema;

/// Most bytes of prepared data in the user's cache, where `run.cache` does not say.
const CACHE_BYTES: u64 = 32 << 30;

/// The commented settings: the embedded default, and the recipe `tiny`.
pub(crate) const DEFAULT_TOML: &str = include_str!("default.toml");

/// All sections.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// The frozen base.
    pub(crate) model: Model,
    /// Training data.
    pub(crate) data: Data,
    /// The adapter.
    pub(crate) lora: LoraConfig,
    /// Training.
    pub(crate) train: TrainConfig,
    /// Validation during training.
    #[serde(skip_serializing_if = "Validate::is_default")]
    pub(crate) validate: Validate,
    /// Use of memory.
    pub(crate) memory: Memory,
    /// Guards against divergence.
    pub(crate) guard: GuardConfig,
    /// Evaluation before and after training.
    pub(crate) evaluate: Evaluate,
    /// The model card.
    pub(crate) card: Card,
    /// Output.
    pub(crate) run: Run,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Model {
    /// Model directory, or a repository as `hf://OWNER/NAME`.
    pub(crate) path: PathBuf,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub(crate) device: String,
    /// The base's name on a hub, if its path does not give one.
    pub(crate) name: Option<String>,
    /// Chat template to use instead of the model's own.
    pub(crate) chat_template: Option<PathBuf>,
    /// Whether to check the base's loss before the first step.
    #[serde(skip_serializing_if = "is_true")]
    #[schemars(extend("default" = true))]
    pub(crate) preflight: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_true(value: &bool) -> bool {
    *value
}

/// `[card]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Card {
    /// Licence of the adapter, as hubs spell it.
    pub(crate) license: Option<String>,
}

/// `[evaluate]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Evaluate {
    /// Suites to ask in addition to the held-out prompts: names of built-in suites, or files.
    pub(crate) suites: Vec<String>,
    /// Reasoning efforts to ask at.
    pub(crate) efforts: Vec<String>,
    /// Replies to each prompt.
    pub(crate) replies: u32,
    /// Sampling temperature, 0 is greedy; if absent, 0 for one reply and 1 for several.
    pub(crate) temperature: Option<f64>,
    /// Top-p.
    pub(crate) top_p: f64,
    /// Seed for sampling.
    pub(crate) seed: u64,
    /// Languages that the judge considers; all if empty.
    pub(crate) languages: Vec<String>,
    /// Whether to ask every prompt also without requesting a language.
    pub(crate) plain: bool,
    /// Maximum tokens in a reply.
    pub(crate) max_new_tokens: usize,
    /// Most prompts in a batch; fewer if memory holds fewer.
    pub(crate) batch: usize,
    /// Questions to ask of each file; all if absent.
    pub(crate) prompts: Option<usize>,
    /// Questions shown in the report, at each effort.
    pub(crate) samples: usize,
    /// In training, if `prompts` is absent: ask only as many questions as take less time than the training steps.
    pub(crate) quick: bool,
}

/// `[run]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Run {
    /// Folder of the run; the next free one if absent.
    pub(crate) folder: Option<PathBuf>,
    /// Steps between checkpoints; 0 saves only after the last step.
    pub(crate) save_every: u64,
    /// Checkpoints to keep.
    pub(crate) keep: usize,
    /// Size limit for prepared data in the user's cache, such as `32GiB`; `none` keeps nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "32GiB"))]
    pub(crate) cache: Option<String>,
}

impl Run {
    /// Most bytes of prepared data in the user's cache; `None` for no cache.
    pub(crate) fn cache(&self) -> Result<Option<u64>, String> {
        match self.cache.as_deref() {
            None => Ok(Some(CACHE_BYTES)),
            Some("none") => Ok(None),
            Some(text) => {
                bytes(text).map(Some).map_err(|reason| format!("run.cache is `{text}`: {reason}, or none"))
            }
        }
    }
}

impl Default for Model {
    fn default() -> Self {
        Self { path: PathBuf::new(), device: "auto".into(), name: None, chat_template: None, preflight: true }
    }
}

impl Default for Run {
    fn default() -> Self {
        Self { folder: None, save_every: 25, keep: 2, cache: None }
    }
}

impl Default for Evaluate {
    fn default() -> Self {
        Self {
            suites: Vec::new(),
            efforts: EFFORTS.map(str::to_owned).to_vec(),
            replies: 1,
            temperature: None,
            top_p: 1.0,
            seed: 3407,
            languages: Vec::new(),
            plain: true,
            max_new_tokens: 190,
            batch: 100,
            prompts: None,
            samples: 4,
            quick: true,
        }
    }
}

impl Evaluate {
    /// The temperature that holds.
    pub(crate) fn temperature(&self) -> f64 {
        self.temperature.unwrap_or(if self.replies > 1 { 1.0 } else { 0.0 })
    }

    /// Checks what types cannot say. The text names the key.
    fn validate(&self) -> Result<(), String> {
        if self.efforts.is_empty() {
            return Err("evaluate.efforts is empty; expected at least one effort".into());
        }
        for (at, effort) in self.efforts.iter().enumerate() {
            check_effort("evaluate.efforts", effort)?;
            if self.efforts[..at].contains(effort) {
                return Err(format!("evaluate.efforts names `{effort}` twice"));
            }
        }
        check_range("evaluate.max_new_tokens", self.max_new_tokens, 1 << 20)?;
        check_range("evaluate.batch", self.batch, 1 << 16)?;
        check_range("evaluate.replies", self.replies as usize, 1 << 10)?;
        if let Some(prompts) = self.prompts {
            check_range("evaluate.prompts", prompts, usize::MAX)?;
        }
        let temperature = self.temperature();
        if !(temperature.is_finite() && (0.0..=100.0).contains(&temperature)) {
            return Err(format!("evaluate.temperature is {temperature}; expected 0 to 100"));
        }
        if self.replies > 1 && temperature == 0.0 {
            return Err("evaluate.temperature is 0, so that all evaluate.replies would be the same".into());
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(format!("evaluate.top_p is {}; expected a number above 0 and up to 1", self.top_p));
        }
        let known = |name: &String| Language::from_code(name).or_else(|| Language::from_name(name));
        if let Some(name) = self.languages.iter().find(|name| known(name).is_none()) {
            let codes: Vec<&str> = Language::all().map(Language::code).collect();
            return Err(format!(
                "evaluate.languages names `{name}`; expected codes out of {}",
                codes.join(", ")
            ));
        }
        let latin = self.languages.iter().filter_map(known).filter(|language| language.is_latin()).count();
        if latin == 1 {
            return Err(
                "evaluate.languages names one Latin language; name at least two, among which it can choose"
                    .into(),
            );
        }
        Ok(())
    }
}

/// Efforts that gpt-oss was trained with.
pub(crate) const EFFORTS: [&str; 3] = ["low", "medium", "high"];

impl Settings {
    /// Everything that may be a repository of a hub in place of a path.
    pub(crate) fn places(&mut self) -> Vec<&mut PathBuf> {
        let data = &mut self.data;
        let mut places = vec![&mut self.model.path, &mut data.path];
        places.extend(data.held_out.as_mut());
        places.extend(data.sources.iter_mut().map(|source| &mut source.path));
        if let Some(ValidationData::File(path)) = &mut data.validation {
            places.push(path);
        }
        places
    }

    /// Checks what types cannot say. The text names the key.
    pub(crate) fn validate(&self) -> Result<(), String> {
        if self.model.path.as_os_str().is_empty() {
            return Err("model.path is not set".into());
        }
        self.data.validate()?;
        self.validate.validate()?;
        if let (Some(patience), None) = (self.validate.patience, &self.data.validation) {
            return Err(format!(
                "validate.patience is {patience}, but data.validation names nothing to validate on"
            ));
        }
        self.lora.validate()?;
        self.train.validate()?;
        self.memory.validate()?;
        self.guard.validate()?;
        self.run.cache()?;
        if self.run.keep < KEEP_AT_LEAST {
            return Err(format!("run.keep is {}; expected at least {KEEP_AT_LEAST}", self.run.keep));
        }
        if let Some(name) = self.model.name.as_ref().filter(|name| !crate::words::is_hub_name(name)) {
            return Err(format!("model.name is `{name}`; expected OWNER/NAME as hubs write it"));
        }
        self.evaluate.validate()
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

#[cfg(test)]
mod tests;
