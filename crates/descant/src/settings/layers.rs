//! File and `--set` put together, each wrong word shown in its line.
//!
//! Order: what the types hold as default, then the file (or, without one, the embedded default), then every
//! `--set` in turn. What comes out is written down as TOML and hashed.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use descant_hub::Reference;
use descant_lora::peft::PublicName;
use serde::Deserialize as _;
use toml::de::{DeTable, DeValue};

use super::{DEFAULT_TOML, Settings, keys};
use crate::failure::Hinted;

/// What the embedded default is called; nobody wrote what is in it.
const EMBEDDED: &str = "embedded default";
/// What the names of recipes begin with; nor those.
pub(crate) const RECIPE: &str = "recipe ";
/// Longest settings file.
const MAX_SETTINGS_BYTES: u64 = 1 << 20;

/// Settings that hold for a run.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The values.
    pub(crate) settings: Settings,
    /// The values as TOML, every key present that has a value.
    pub(crate) text: String,
    /// SHA-256 of `text` in hexadecimal.
    pub(crate) sha256: String,
    /// Where they came from, for people.
    pub(crate) origin: String,
    /// What `model.path` said: a path, or a repository pinned to its commit.
    pub(crate) model: String,
    /// A default that gave way to what was written, as text.
    pub(crate) note: Option<String>,
}

/// The folder of the embedded default's model, in a checkout.
pub(crate) const EMBEDDED_MODEL: &str = "fixtures/tiny-gpt-oss";
/// What that model is called everywhere.
pub(crate) const EMBEDDED_MODEL_NAME: &str = "tiny-gpt-oss";

/// The key of the default that gives way to few steps.
const WARMUP: &str = "train.warmup_steps";

fn is_warmup(set: &str) -> bool {
    set.split_once('=').is_some_and(|(key, _)| key.trim() == WARMUP)
}

fn text_has_warmup(text: &str) -> bool {
    let table = toml::from_str::<toml::Table>(text).ok();
    table.is_some_and(|table| table.get("train").and_then(|train| train.get("warmup_steps")).is_some())
}

/// Reads `file` (or the embedded default) and applies `sets`.
pub(crate) fn resolve(file: Option<&Path>, sets: &[String]) -> Result<Resolved> {
    match file {
        None => resolve_text(EMBEDDED, DEFAULT_TOML, sets),
        Some(path) => resolve_text(&path.display().to_string(), &read(path)?, sets),
    }
}

/// Takes the text of a file and applies `sets`.
pub(crate) fn resolve_text(name: &str, text: &str, sets: &[String]) -> Result<Resolved> {
    let mut table = parse(name, text)?;
    for set in sets {
        apply(&mut table, set)?;
    }
    let mut settings = Settings::deserialize(table).context("settings")?;
    let ours = name == EMBEDDED || name.starts_with(RECIPE);
    let written = !ours && text_has_warmup(text) || sets.iter().any(|set| is_warmup(set));
    let notes = if written { None } else { settings.train.fit_warmup() };
    let origin = match sets.len() {
        0 => name.to_owned(),
        n => format!("{name} + {n} --set"),
    };
    let mut resolved = Resolved {
        settings,
        text: String::new(),
        sha256: String::new(),
        origin,
        model: String::new(),
        note: notes,
    };
    resolved.write_down()?;
    Ok(resolved)
}

impl Resolved {
    /// The model's own name, without folders, owner or commit.
    pub(crate) fn model_name(&self) -> String {
        let named = Reference::is_meant(&self.model).then(|| Reference::parse(&self.model).ok()).flatten();
        let path = || Path::new(&self.model).file_name().and_then(std::ffi::OsStr::to_str);
        named.map_or_else(|| path().unwrap_or("run").to_owned(), |reference| reference.repo.name().to_owned())
    }

    /// What the base is called on a hub: by an `hf://` name, else by the place of a folder in the shared cache, else by
    /// `model.name`. A path is never taken for a name.
    pub(crate) fn hub_name(&self) -> Option<String> {
        let named = Reference::is_meant(&self.model).then(|| Reference::parse(&self.model).ok()).flatten();
        named
            .map(|reference| reference.repo.id())
            .or_else(|| self.in_cache().map(|(name, _)| name))
            .or_else(|| self.settings.model.name.clone())
    }

    /// What an adapter calls the model that it belongs to: its name on a hub, else that of its folder. Never a path,
    /// which would mean nothing on another machine.
    pub(crate) fn base_model(&self) -> String {
        let folder = || {
            let path = std::path::absolute(&self.model).unwrap_or_else(|_| self.model.clone().into());
            PublicName::of(&path.to_string_lossy()).map_or_else(|| "gpt-oss".to_owned(), |found| found.name)
        };
        self.hub_name().unwrap_or_else(folder)
    }

    /// Whether the base is the model of this repository, which no hub has and everybody who has the program can name.
    pub(crate) fn is_embedded_model(&self) -> bool {
        self.hub_name().is_none() && Path::new(&self.model).ends_with(EMBEDDED_MODEL)
    }

    /// The commit of the base, where its name or its place in the shared cache shows it.
    pub(crate) fn base_commit(&self) -> Option<String> {
        let pinned = Reference::is_meant(&self.model).then(|| self.model.split_once('@')).flatten();
        pinned.map(|(_, commit)| commit.to_owned()).or_else(|| self.in_cache().map(|(_, commit)| commit))
    }

    /// Name and commit of a folder `models--OWNER--NAME/snapshots/COMMIT`.
    fn in_cache(&self) -> Option<(String, String)> {
        let found = PublicName::of(&self.model)?;
        found.revision.map(|commit| (found.name, commit))
    }

    /// Brings text, hash and the model's name into line with the values.
    pub(crate) fn write_down(&mut self) -> Result<()> {
        self.text = toml::to_string(&self.settings).context("writing the settings as TOML")?;
        self.sha256 = descant_files::sha256(self.text.as_bytes());
        self.model = self.settings.model.path.display().to_string();
        Ok(())
    }
}

/// Endings of files that hold rows.
const OF_DATA: [&str; 7] = ["jsonl", "ndjson", "json", "parquet", "csv", "gz", "zst"];

fn read(path: &Path) -> Result<String> {
    if path.extension().is_some_and(|of| OF_DATA.iter().any(|data| of.eq_ignore_ascii_case(data))) {
        let path = path.display();
        let error = anyhow!("{path}: a file of data, not of settings, which are TOML");
        let hint = format!(
            "give it as --set data.path={path}, or data.held_out for questions; `descant init` writes a settings file"
        );
        return Err(Hinted::new(error, hint).into());
    }
    let bytes = descant_files::read_bounded(path, MAX_SETTINGS_BYTES)
        .map_err(|e| Hinted::new(e, "descant init writes a commented settings file"))?;
    String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8", path.display()))
}

/// Parses a file, refuses unknown keys and values of the wrong type.
fn parse(name: &str, text: &str) -> Result<toml::Table> {
    let document = DeTable::parse(text).map_err(|e| located(name, text, &e))?;
    let known = keys::known();
    check_keys(name, text, "", document.get_ref(), &known)?;
    toml::from_str::<Settings>(text).map_err(|e| located(name, text, &e))?;
    toml::from_str(text).map_err(|e| located(name, text, &e))
}

/// Refuses the first key that is not known. `before` is the table that `table` is in.
fn check_keys(name: &str, text: &str, before: &str, table: &DeTable<'_>, known: &[String]) -> Result<()> {
    for (key, value) in table {
        let at = key.span().start;
        let full =
            if before.is_empty() { key.get_ref().to_string() } else { format!("{before}.{}", key.get_ref()) };
        let inside = format!("{full}.");
        match value.get_ref() {
            DeValue::Table(inner) if known.iter().any(|key| key.starts_with(&inside)) => {
                check_keys(name, text, &full, inner, known)?;
            }
            // A value of the wrong type under a known key is for the typed reader to refuse.
            DeValue::Table(_) if !known.contains(&full) => return Err(unknown(name, text, at, &full)),
            _ if known.contains(&full)
                || (!before.is_empty() && known.iter().any(|key| key.starts_with(&inside))) => {}
            _ => return Err(unknown(name, text, at, &full)),
        }
    }
    Ok(())
}

/// The parser's error, in its line.
fn located(name: &str, text: &str, error: &toml::de::Error) -> anyhow::Error {
    match error.span() {
        Some(span) => anyhow!(shown(name, text, span.start, told(error))),
        None => anyhow!("{name}: {}", told(error)),
    }
}

/// What is wrong, where the parser says it in terms of its own.
fn told(error: &toml::de::Error) -> &str {
    match error.message() {
        "invalid type: unit variant, expected string only" => "invalid type: expected one of the key's words",
        message => message,
    }
}

fn unknown(name: &str, text: &str, at: usize, key: &str) -> anyhow::Error {
    hinted(shown(name, text, at, &format!("unknown key `{key}`")), key)
}

/// A message with place, line and caret.
fn shown(name: &str, text: &str, at: usize, message: &str) -> String {
    let before = text.get(..at).unwrap_or(text);
    let number = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let (margin, indent) = (" ".repeat(number.to_string().len()), " ".repeat(column));
    format!("{name}:{number}:{}: {message}\n{margin} |\n{number} | {line}\n{margin} | {indent}^", column + 1)
}

fn hinted(message: String, key: &str) -> anyhow::Error {
    match keys::meant(key) {
        Some(hint) => Hinted::new(anyhow!(message), hint).into(),
        None => Hinted::new(anyhow!(message), "descant init writes a file with every key").into(),
    }
}

/// Applies one `--set key=value`.
fn apply(table: &mut toml::Table, set: &str) -> Result<()> {
    let Some((key, value)) = set.split_once('=') else {
        return Err(Hinted::new(anyhow!("--set {set}: no `=`"), "write --set train.max_steps=200").into());
    };
    let (key, value) = (key.trim(), value.trim());
    if !keys::known().iter().any(|known| known == key) {
        return Err(hinted(format!("--set {set}: unknown key `{key}`"), key));
    }
    let (sections, name) = key.rsplit_once('.').context("known keys have a section")?;
    let mut inner = &mut *table;
    for section in sections.split('.') {
        let entry = inner.entry(section).or_insert_with(|| toml::Table::new().into());
        inner = entry.as_table_mut().context("sections are tables")?;
    }
    inner.insert(name.to_owned(), typed(value));
    Settings::deserialize(table.clone()).map_err(|e| anyhow!("--set {set}: {}", told(&e)))?;
    Ok(())
}

/// A value in TOML's syntax; what is none, and a date, is a string.
fn typed(value: &str) -> toml::Value {
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok();
    match parsed.and_then(|mut table| if table.len() == 1 { table.remove("value") } else { None }) {
        Some(toml::Value::Datetime(_)) | None => toml::Value::String(value.to_owned()),
        Some(typed) => typed,
    }
}
