//! `adapter_config.json`, read strictly.
//!
//! PEFT writes every option it knows, most of them null, and each release knows more. So a key that we do not know
//! passes when it says nothing (null, false, or empty) and is refused by name when it says something: it could
//! change the arithmetic. Keys that cannot are listed here.

use std::path::Path;

use serde_json::{Map, Value};

use super::error::{Error, Result};
use crate::config::MAX_RANK;

/// Longest `adapter_config.json` we read.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Keys that change nothing for an adapter that is already trained, whatever they say.
const INERT: [&str; 7] = [
    "auto_mapping",
    "eva_config",
    "inference_mode",
    "megatron_core", // only with megatron_config
    "peft_version",
    "qalora_group_size", // only with use_qalora
    "runtime_config",
];
/// Ways to initialize that leave the base model as it is; others (pissa, olora, loftq, ...) change it.
const HARMLESS_INIT: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// Which modules an adapter is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetModules {
    /// Names, or endings of names after a dot.
    Names(Vec<String>),
    /// A regular expression for whole names.
    Pattern(String),
}

/// What of `adapter_config.json` decides the arithmetic.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftConfig {
    /// The model it was trained on, as the file says.
    pub base_model: Option<String>,
    /// The commit of it, where the file says one.
    pub revision: Option<String>,
    /// Rank where no pattern says otherwise.
    pub rank: usize,
    /// Alpha where no pattern says otherwise.
    pub alpha: f64,
    /// Whether the scaling is alpha / sqrt(rank) instead of alpha / rank.
    pub use_rslora: bool,
    /// Ranks of modules by pattern; the first that matches counts.
    pub rank_pattern: Vec<(String, usize)>,
    /// Alphas of modules by pattern; the first that matches counts.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Targeted modules.
    pub target_modules: TargetModules,
    /// Targeted parameters, by name or ending.
    pub target_parameters: Vec<String>,
    /// Modules that are not targeted after all.
    pub exclude_modules: TargetModules,
    /// The only layers whose modules are targeted.
    pub layers: Option<Vec<usize>>,
}

impl PeftConfig {
    /// Reads the text of an `adapter_config.json`; `path` is for errors.
    ///
    /// # Errors
    /// The text is not a JSON object, a key has an impossible value, or asks for what is not computed here.
    pub fn from_slice(bytes: &[u8], path: &Path) -> Result<Self> {
        let map =
            serde_json::from_slice(bytes).map_err(|source| Error::Json { path: path.to_owned(), source })?;
        let mut keys = Keys { path, map };
        keys.only("peft_type", &["LORA"])?;
        keys.only("task_type", &["CAUSAL_LM"])?;
        keys.only("bias", &["none"])?;
        keys.check_dropout()?;
        keys.check_init()?;
        let config = Self {
            base_model: keys.text("base_model_name_or_path")?,
            revision: keys.text("revision")?,
            rank: keys.rank()?,
            alpha: keys.alpha()?,
            use_rslora: keys.flag("use_rslora")?,
            rank_pattern: keys.pattern("rank_pattern", as_rank)?,
            alpha_pattern: keys.pattern("alpha_pattern", as_alpha)?,
            target_modules: keys.modules("target_modules")?,
            target_parameters: keys.names("target_parameters")?,
            exclude_modules: keys.modules("exclude_modules")?,
            layers: keys.layers()?,
        };
        keys.nothing_left()?;
        Ok(config)
    }

    /// Factor on the product of a pair.
    pub fn scaling(&self, rank: usize, alpha: f64) -> f32 {
        let rank = rank as f64;
        (alpha / if self.use_rslora { rank.sqrt() } else { rank }) as f32
    }
}

/// The file's keys; each is taken out when it is read.
struct Keys<'a> {
    path: &'a Path,
    map: Map<String, Value>,
}

impl Keys<'_> {
    /// The value of a key that says something.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.map.shift_remove(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, reason: impl Into<String>) -> Error {
        Error::Key { path: self.path.to_owned(), key: key.to_owned(), reason: reason.into() }
    }

    fn unsupported(&self, key: &str, value: &Value) -> Error {
        Error::Unsupported { path: self.path.to_owned(), key: key.to_owned(), value: value.to_string() }
    }

    fn only(&mut self, key: &str, allowed: &[&str]) -> Result<()> {
        match self.take(key) {
            Some(value) if value.as_str().is_none_or(|text| !allowed.contains(&text)) => {
                Err(self.unsupported(key, &value))
            }
            _ => Ok(()),
        }
    }

    fn text(&mut self, key: &str) -> Result<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => Err(self.wrong(key, format!("is {value}; expected text"))),
        }
    }

    fn flag(&mut self, key: &str) -> Result<bool> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(value) => Err(self.wrong(key, format!("is {value}; expected true or false"))),
        }
    }

    fn names(&mut self, key: &str) -> Result<Vec<String>> {
        let Some(value) = self.take(key).filter(|value| !silent(value)) else { return Ok(Vec::new()) };
        serde_json::from_value::<Vec<String>>(value.clone())
            .ok()
            .filter(|names| names.iter().all(|name| !name.is_empty()))
            .ok_or_else(|| self.wrong(key, format!("is {value}; expected a list of names")))
    }

    fn modules(&mut self, key: &str) -> Result<TargetModules> {
        match self.map.get(key) {
            Some(Value::String(_)) => {
                let pattern = self.text(key)?.expect("it was just seen to be text");
                Ok(TargetModules::Pattern(pattern))
            }
            _ => self.names(key).map(TargetModules::Names),
        }
    }

    /// `layers_to_transform`, a number or a list, of the list of layers that every pattern here must mean.
    fn layers(&mut self) -> Result<Option<Vec<usize>>> {
        let pattern = self.take("layers_pattern");
        let value = self.take("layers_to_transform").filter(|value| !silent(value));
        let Some(value) = value else { return Ok(None) };
        let names = match pattern {
            None => Vec::new(),
            Some(Value::String(name)) => vec![name],
            Some(other) => serde_json::from_value(other.clone())
                .map_err(|_| self.wrong("layers_pattern", format!("is {other}; expected names")))?,
        };
        if !names.is_empty() && !names.iter().any(|name| name == "layers") {
            let reason = format!("is {}; the model's list of layers is `layers`", names.join(", "));
            return Err(self.wrong("layers_pattern", reason));
        }
        let layers = match &value {
            Value::Number(_) => serde_json::from_value(value.clone()).map(|layer| vec![layer]),
            _ => serde_json::from_value::<Vec<usize>>(value.clone()),
        };
        let layers = layers.map_err(|_| {
            self.wrong("layers_to_transform", format!("is {value}; expected numbers of layers"))
        })?;
        // PEFT takes an empty list for none at all.
        Ok(Some(layers).filter(|layers| !layers.is_empty()))
    }

    fn rank(&mut self) -> Result<usize> {
        let value = self.take("r").ok_or_else(|| self.wrong("r", "is missing"))?;
        as_rank(&value).map_err(|reason| self.wrong("r", reason))
    }

    fn alpha(&mut self) -> Result<f64> {
        let value = self.take("lora_alpha").ok_or_else(|| self.wrong("lora_alpha", "is missing"))?;
        as_alpha(&value).map_err(|reason| self.wrong("lora_alpha", reason))
    }

    fn pattern<T>(
        &mut self,
        key: &str,
        read: fn(&Value) -> std::result::Result<T, String>,
    ) -> Result<Vec<(String, T)>> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Object(map)) => map
                .into_iter()
                .map(|(name, value)| match read(&value) {
                    Ok(value) => Ok((name, value)),
                    Err(reason) => Err(self.wrong(&format!("{key}.{name}"), reason)),
                })
                .collect(),
            Some(value) => Err(self.wrong(key, format!("is {value}; expected an object"))),
        }
    }

    /// Dropout is for training only, so an adapter that was trained with it computes the same without.
    fn check_dropout(&mut self) -> Result<()> {
        match self.take("lora_dropout") {
            None => Ok(()),
            Some(value) if value.as_f64().is_some_and(|p| (0.0..1.0).contains(&p)) => Ok(()),
            Some(value) => Err(self.wrong("lora_dropout", format!("is {value}; expected 0 to below 1"))),
        }
    }

    fn check_init(&mut self) -> Result<()> {
        match self.take("init_lora_weights") {
            None | Some(Value::Bool(_)) => Ok(()),
            Some(Value::String(text)) if HARMLESS_INIT.contains(&text.as_str()) => Ok(()),
            Some(value) => Err(self.unsupported("init_lora_weights", &value)),
        }
    }

    fn nothing_left(&self) -> Result<()> {
        match self.map.iter().find(|(key, value)| !INERT.contains(&key.as_str()) && !silent(value)) {
            Some((key, value)) => Err(self.unsupported(key, value)),
            None => Ok(()),
        }
    }
}

/// Whether a value says nothing.
fn silent(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn as_rank(value: &Value) -> std::result::Result<usize, String> {
    value
        .as_u64()
        .filter(|&rank| (1..=MAX_RANK as u64).contains(&rank))
        .map(|rank| rank as usize)
        .ok_or_else(|| format!("is {value}; expected 1 to {MAX_RANK}"))
}

fn as_alpha(value: &Value) -> std::result::Result<f64, String> {
    value
        .as_f64()
        .filter(|alpha| alpha.is_finite() && *alpha > 0.0)
        .ok_or_else(|| format!("is {value}; expected a positive number"))
}
