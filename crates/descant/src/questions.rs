//! What kept replies need to be judged again: the questions that they answer, and the tokenizer of their ids.

use std::path::Path;

use anyhow::{Result, anyhow};
use descant_evaluate::{Samples, Suite};
use descant_harmony::{Tokenizer, vocabulary};

use crate::failure::Hinted;

/// The suites that a file of samples was made with: those that are given, then what its header names. Each must be the
/// file that was asked, where the header says which.
pub(crate) fn suites_of(samples: &Samples, given: &[String]) -> Result<Vec<Suite>> {
    let given: Vec<Suite> = given.iter().map(|name| Suite::load(name)).collect::<Result<_, _>>()?;
    let header = &samples.header;
    if header.suites.is_empty() {
        if !given.is_empty() {
            return Ok(given);
        }
        let name = header.suite.as_deref().unwrap_or("questions");
        return Ok(vec![find(samples, name, None)?]);
    }
    let mut suites = Vec::new();
    for source in &header.suites {
        let suite = match given.iter().find(|suite| suite.sha256 == source.sha256) {
            Some(suite) => suite.clone(),
            None => find(samples, &source.name, Some(&source.sha256))?,
        };
        suites.push(suite);
    }
    Ok(suites)
}

/// A suite by name: shipped, at its path, or beside the samples.
fn find(samples: &Samples, name: &str, sha256: Option<&str>) -> Result<Suite> {
    let folder = samples.path.parent().unwrap_or(Path::new("."));
    let file_name = Path::new(name).file_name().map_or_else(|| name.into(), ToOwned::to_owned);
    let beside =
        [folder.join(&file_name), folder.join(format!("{name}.jsonl")), folder.join("questions.jsonl")];
    let beside = beside.iter().filter(|path| path.is_file()).map(|path| path.display().to_string());
    let mut seen = None;
    for place in [name.to_owned()].into_iter().chain(beside) {
        let Ok(suite) = Suite::load(&place) else { continue };
        if sha256.is_none_or(|sha256| suite.sha256 == sha256) {
            return Ok(suite);
        }
        seen = Some(suite.source);
    }
    let error = match seen {
        Some(place) => anyhow!(
            "{place} is not the file of questions that {} was made with: its SHA-256 differs",
            samples.path.display()
        ),
        None => anyhow!("the questions `{name}` of {} are not here", samples.path.display()),
    };
    Err(Hinted::new(error, "name the file of questions: --suite FILE").into())
}

/// The tokenizer that samples were made with: the published one, which is built in, or that of the model's folder.
pub(crate) fn tokenizer_of(samples: &Samples, model: Option<&Path>) -> Result<Tokenizer> {
    let wanted = samples.header.tokenizer_sha256.as_str();
    if wanted.is_empty() || wanted == vocabulary::TOKENIZER_SHA256 {
        return Ok(Tokenizer::gpt_oss()?);
    }
    let named = Path::new(&samples.header.model);
    let folder = model.unwrap_or(named);
    let hint = "--model DIR names the folder of the model that replied";
    if !folder.join("tokenizer.json").is_file() {
        let error = anyhow!("the tokenizer that {} was made with is not here", samples.path.display());
        return Err(Hinted::new(error, hint).into());
    }
    let tokenizer = Tokenizer::load(folder)?;
    if tokenizer.sha256() != wanted {
        let error = anyhow!(
            "the tokenizer of {} is not the one that {} was made with",
            folder.display(),
            samples.path.display()
        );
        return Err(Hinted::new(error, hint).into());
    }
    Ok(tokenizer)
}
