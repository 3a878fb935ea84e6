//! `descant download`: brings repositories into the cache, or looks whether what is there is whole.

use std::path::Path;

use anyhow::{Context as _, Result};
use descant_hub::{Checked, Outcome, Reference, Snapshot, check_dir};
use serde_json::{Value, json};

use crate::cli::Download;
use crate::failure::{Exit, Hinted};
use crate::hub::{Places, hinted};
use crate::settings::{Recipe, resolve_text};
use crate::talk::Talk;

/// The model that the tutorial is about.
const DEFAULT: &str = "hf://openai/gpt-oss-20b";

/// Fetches or verifies everything that was named; the places are standard output.
pub(crate) fn run(args: &Download, talk: Talk) -> Result<Exit> {
    let mut exit = Exit::Success;
    let mut answers = Vec::new();
    for name in names(args)? {
        let answer = if Path::new(&name).is_dir() {
            directory(Path::new(&name), talk)?
        } else {
            repository(args, &name, talk)?
        };
        if answer.damaged > 0 {
            exit = Exit::No;
        }
        answers.push(answer);
    }
    if args.json {
        let all: Vec<&Value> = answers.iter().map(|answer| &answer.json).collect();
        talk.data(json!({"schema_version": 1, "repositories": all}))?;
    } else {
        for answer in &answers {
            talk.data(&answer.path)?;
        }
    }
    Ok(exit)
}

/// What became of one of them.
struct Answer {
    path: String,
    damaged: usize,
    json: Value,
}

/// The repositories that were named, those of a recipe, or the default.
fn names(args: &Download) -> Result<Vec<String>> {
    let mut names = args.repositories.clone();
    if let Some(name) = &args.recipe {
        let recipe = Recipe::find(name)?;
        let mut settings = resolve_text(recipe.name, recipe.toml, &[])?.settings;
        let places = settings.places().into_iter().map(|path| path.display().to_string());
        names.extend(places.filter(|name| Reference::is_meant(name)));
    }
    if names.is_empty() && args.recipe.is_none() {
        names.push(DEFAULT.to_owned());
    }
    Ok(names)
}

fn repository(args: &Download, name: &str, talk: Talk) -> Result<Answer> {
    let places = Places::new(true, args.offline, talk);
    let reference = Reference::parse(name).map_err(hinted)?;
    let cache = places.cache()?;
    let snapshot = if places.may_fetch() {
        places.fetch(&reference, args.verify)?
    } else {
        cache.find(&reference).map_err(hinted)?
    };
    let mut damaged = 0;
    let mut files = None;
    if args.verify {
        let checked =
            cache.verify(&snapshot, |file| talk.detail(format_args!("{} {:?}", file.name, file.outcome)));
        let checked = checked.map_err(hinted)?;
        damaged = report(&checked, &snapshot.reference.to_string(), talk);
        files = Some(as_json(&checked));
    }
    Ok(Answer { path: snapshot.path.display().to_string(), damaged, json: answer(&snapshot, files) })
}

fn directory(dir: &Path, talk: Talk) -> Result<Answer> {
    let checked = check_dir(dir).with_context(|| format!("{} is not to be fetched", dir.display()));
    let checked = checked.map_err(|e| Hinted::new(e, "a repository is written hf://OWNER/NAME"))?;
    let damaged = report(&checked, &dir.display().to_string(), talk);
    let path = dir.display().to_string();
    let json = json!({"path": path, "files": as_json(&checked)});
    Ok(Answer { path, damaged, json })
}

/// Says what was found; returns how many files are damaged.
fn report(checked: &[Checked], what: &str, talk: Talk) -> usize {
    let mut damaged = 0;
    for file in checked {
        if let Outcome::Damaged(error) = &file.outcome {
            talk.warn(error);
            damaged += 1;
        }
    }
    let verified = checked.iter().filter(|file| matches!(file.outcome, Outcome::Verified(_))).count();
    let plain = checked.len() - verified - damaged;
    let mut parts = vec![format!("{verified} files have their published hash")];
    if plain > 0 {
        parts.push(format!("{plain} look whole and have no published hash here"));
    }
    if damaged > 0 {
        parts.push(format!("{damaged} are damaged"));
    }
    talk.item("checked", format_args!("{what}: {}", parts.join(", ")));
    if damaged > 0 {
        talk.hint(format_args!("descant download --verify {what} fetches damaged files of a cache again"));
    }
    damaged
}

fn as_json(checked: &[Checked]) -> Value {
    let file = |file: &Checked| {
        let (state, hash) = match &file.outcome {
            Outcome::Verified(hash) => ("verified", Some(hash.as_str())),
            Outcome::Consistent => ("consistent", None),
            Outcome::Damaged(_) => ("damaged", None),
        };
        json!({"name": file.name, "size": file.size, "state": state, "hash": hash})
    };
    checked.iter().map(file).collect()
}

fn answer(snapshot: &Snapshot, files: Option<Value>) -> Value {
    let names: Vec<&str> = snapshot.files.iter().map(descant_files::RelPath::as_str).collect();
    json!({
        "reference": snapshot.reference.to_string(),
        "commit": snapshot.commit.as_str(),
        "path": snapshot.path,
        "files": files.unwrap_or_else(|| json!(names)),
    })
}
