//! `descant evaluate --judge`: the verdict on every reply of a file, without a model, with the published tokenizer.

use std::path::Path;

use anyhow::{Result, anyhow};
use descant_evaluate::{Answer, Asked, Detector, Language, judge, recipients};
use descant_harmony::read::{Columns, each_object};
use descant_harmony::{TextEncoder as _, Tokenizer};
use serde_json::{Map, Value};

use crate::failure::Exit;
use crate::talk::Talk;

/// Judges line by line.
pub(crate) fn run(path: &Path, as_json: bool, talk: Talk) -> Result<Exit> {
    let tokenizer = Tokenizer::gpt_oss()?;
    let detector = Detector::new(&[]);
    let mut rows = Vec::new();
    // Read whole before the first verdict: a broken line is reported before anything is printed.
    each_object(path, Columns::All, |line, row| {
        rows.push((line, row?));
        Ok(())
    })?;
    for (line, row) in &rows {
        let verdict = one(row, &tokenizer, &detector)
            .map_err(|reason| anyhow!("{}, line {line}: {reason}", path.display()))?;
        let shown = if as_json { verdict.to_string() } else { in_words(&verdict) };
        talk.data(shown)?;
    }
    Ok(Exit::Success)
}

fn text<'r>(row: &'r Map<String, Value>, key: &str) -> Result<Option<&'r str>, String> {
    match row.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{key}: expected a text")),
    }
}

fn one(row: &Map<String, Value>, tokenizer: &Tokenizer, detector: &Detector) -> Result<Value, String> {
    let reply = text(row, "reply")?.ok_or("reply: missing")?;
    let ids = tokenizer.encode_rendered(reply).map_err(|error| error.to_string())?;
    let asked = text(row, "asked")?;
    let language = |code: &str| {
        let known = Language::from_code(code).or_else(|| Language::from_name(code));
        known.ok_or_else(|| format!("asked: `{code}` is not the code of a supported language"))
    };
    let names = match row.get("tools") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(names)) => names
            .iter()
            .map(|name| name.as_str().map(str::to_owned).ok_or("tools: expected a list of names"))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err("tools: expected a list of names".into()),
    };
    let answer = row.get("answer").map_or(Ok(Answer::None), Answer::from_json)?;
    let asked = Asked {
        prompt: text(row, "prompt")?.unwrap_or_default(),
        language: asked.map(language).transpose()?,
        answer_language: None,
        answer: &answer,
        tools: &recipients(&names),
    };
    let verdict = judge(&ids, asked, tokenizer, detector);
    let fields = serde_json::to_value(&verdict).map_err(|error| error.to_string())?;
    let mut line = Map::new();
    line.insert("id".into(), row.get("id").cloned().unwrap_or(Value::Null));
    line.extend(fields.as_object().cloned().unwrap_or_default());
    Ok(Value::Object(line))
}

/// The same in a line for people.
fn in_words(verdict: &Value) -> String {
    let of = |key: &str| match &verdict[key] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!(
        "{}  {}  {}  analysis {}, {}  answer {}  right {}",
        of("id"),
        of("harmony"),
        of("end"),
        of("analysis"),
        of("reasoning_language"),
        of("answer_language"),
        of("right")
    )
}
