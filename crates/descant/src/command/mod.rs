//! One file a command: arguments in, library called, result rendered.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use crate::cards;
use crate::cli::{Cli, Command, Files, Measured, Plan, SettingsArgs};
use crate::failure::Exit;
use crate::hub::Places;
use crate::published;
use crate::settings::{RECIPE, Recipe, Resolved, Settings, init_toml, resolve, resolve_text};
use crate::talk::Talk;

mod account;
mod bench;
mod bench_answer;
mod bench_cards;
mod bench_compare;
mod bench_generate;
mod bench_row;
mod best;
mod chat;
mod data;
mod doctor;
mod download;
mod evaluate;
mod examination;
mod examples;
mod export;
mod figures;
mod generate;
mod host_memory;
mod identity;
mod in_fp8;
mod init;
mod judge;
#[cfg(feature = "cuda")]
mod kept;
mod load;
mod operations;
mod overlap;
mod pages;
mod plan;
mod preflight;
mod prepared;
mod prove;
mod random_ids;
mod report;
mod room;
mod rows;
mod sample;
mod score;
mod self_test;
mod shell;
mod speaker;
mod stalls;
mod stamps;
mod summary;
mod timed;
mod tokenizer;
mod train;
mod validation;

/// Runs the command that was asked for.
pub(crate) fn run(cli: &Cli, talk: Talk) -> Result<Exit> {
    let root = &cli.global.root;
    // Only these two may go to the network; the others take what the cache has.
    let cached = Places::new(false, true, talk);
    if let Some(adapter) = adapter(&cli.command) {
        load::check_adapter(adapter)?;
    }
    match &cli.command {
        Command::Train(args) if args.dry_run => {
            train::dry_run(&settings(&args.settings, args.recipe.as_deref(), root, None)?, talk)
        }
        Command::Train(args) => {
            let place = cards::place()?;
            // Once for all processes: the launcher, or rank 0.
            let speaks =
                !cards::is_launched(place.as_ref()) && place.as_ref().is_none_or(|place| place.rank == 0);
            let talk_before = if speaks { talk } else { talk.silenced() };
            let places = Places::new(true, args.offline, talk_before);
            let resolved =
                settings(&args.settings, args.recipe.as_deref(), root, Some((&places, talk_before)))?;
            train::run(args, &resolved, place, talk)
        }
        Command::Plan(args) => plan::run(args, &planned(args, root, &cached, talk)?, &cached, talk),
        Command::Evaluate(args) => match (&args.judge, &args.from) {
            (Some(path), _) => judge::run(path, args.json, talk),
            (None, Some(from)) => evaluate::again(args, from, talk),
            (None, None) => {
                evaluate::run(args, settings(&args.settings, None, root, Some((&cached, talk)))?, talk)
            }
        },
        Command::Report(args) => report::run(args, talk),
        Command::Generate(args) => {
            generate::run(args, &model(args.model.model.as_ref(), root, &cached)?, talk)
        }
        Command::Chat(args) => chat::run(args, &model(args.model.model.as_ref(), root, &cached)?, talk),
        Command::Score(args) => score::run(args, &model(args.model.model.as_ref(), root, &cached)?, talk),
        Command::Data(args) => {
            // The embedded default's model is there in a checkout of this repository, and nowhere else.
            let embedded = |model: &PathBuf| model.is_dir();
            let find = |files: &Files| {
                let given = files.model.as_ref();
                let found = model(given, root, &cached)?;
                Ok((given.is_some() || embedded(&found)).then_some(found))
            };
            data::run(args, find, &cached, talk)
        }
        Command::Tokenizer(args) => tokenizer::run(args, talk),
        Command::Export(args) => {
            let run = export::run_of(&args.adapter, &cached)?;
            let dir = match (&args.model, &run) {
                (None, Some(run)) => run.settings.model.path.clone(),
                (given, _) => model(given.as_ref(), root, &cached)?,
            };
            export::run(args, &dir, run.as_ref(), talk)
        }
        Command::Init(args) => init::run(args, talk),
        Command::Bench(args) => match &args.what {
            None => self_test::run(&args.self_test, talk),
            Some(Measured::Step(args)) => {
                bench::run(args, &model(args.on.model.as_ref(), root, &cached)?, talk)
            }
            Some(Measured::Generate(args)) => {
                bench_generate::run(args, &model(args.on.model.as_ref(), root, &cached)?, talk)
            }
            Some(Measured::Compare(args)) => bench_compare::run(args, talk),
        },
        Command::Download(args) => download::run(args, talk),
        Command::Doctor(args) => doctor::run(args, talk),
        Command::Completions(args) => shell::completions(args, talk),
        Command::Man(args) => shell::man(args, talk),
    }
}

/// The adapter that a command reads.
fn adapter(command: &Command) -> Option<&PathBuf> {
    match command {
        Command::Generate(args) => args.model.adapter.as_ref(),
        Command::Chat(args) => args.model.adapter.as_ref(),
        Command::Score(args) => args.model.adapter.as_ref(),
        Command::Evaluate(args) => args.adapter.as_ref(),
        Command::Export(args) => Some(&args.adapter),
        Command::Bench(args) => match &args.what {
            Some(Measured::Generate(args)) => args.adapter.as_ref(),
            _ => None,
        },
        _ => None,
    }
}

/// The settings that hold, checked; with `places`, repositories in them are looked up there.
fn settings(
    args: &SettingsArgs,
    recipe: Option<&str>,
    root: &Path,
    places: Option<(&Places, Talk)>,
) -> Result<Resolved> {
    let recipe = recipe.map(Recipe::find).transpose()?;
    let mut resolved = named(args, recipe, &[])?;
    if let (Some(note), Some((_, talk))) = (&resolved.note, places) {
        talk.say(note);
    }
    if let Some((places, talk)) = places {
        for written in recipe.map(Recipe::lay_out).transpose()?.unwrap_or_default() {
            talk.say(format_args!("wrote {written}"));
        }
        if args.file.is_some() || recipe.is_some() {
            places.refuse_missing(&mut resolved)?;
        }
        places.settle(&mut resolved)?;
    }
    if args.file.is_none() && recipe.is_none() {
        from_root(&mut resolved, &resolve(None, &[])?.settings, root);
    }
    Ok(resolved)
}

/// The settings of a plan: nothing is written, and what the cache lacks keeps its name.
fn planned(args: &Plan, root: &Path, cached: &Places, talk: Talk) -> Result<Resolved> {
    let recipe = args.recipe.as_deref().map(Recipe::find).transpose()?;
    let model = args.model.as_deref().map(published::model_setting).transpose()?;
    let model: Vec<String> = model.map(|model| set("model.path", model)).into_iter().collect();
    let alone = args.settings.file.is_none() && recipe.is_none() && !model.is_empty();
    let mut resolved =
        if alone { real_model(&args.settings, &model)? } else { named(&args.settings, recipe, &model)? };
    if let Some(note) = &resolved.note {
        talk.say(note);
    }
    cached.settle_what_is_here(&mut resolved)?;
    if args.settings.file.is_none() && recipe.is_none() && !alone {
        from_root(&mut resolved, &resolve(None, &[])?.settings, root);
    }
    Ok(resolved)
}

/// What `descant init` writes, without the data that it names.
fn real_model(args: &SettingsArgs, model: &[String]) -> Result<Resolved> {
    let sets = [&[set("data.path", String::new())], model, sets(args).as_slice()].concat();
    checked(resolve_text("the settings of descant init", &init_toml(), &sets)?)
}

/// The settings of a file or recipe with every option in force, checked. `before` is what other options than `--set` set.
fn named(args: &SettingsArgs, recipe: Option<&Recipe>, before: &[String]) -> Result<Resolved> {
    let sets = [before, sets(args).as_slice()].concat();
    checked(match recipe {
        Some(recipe) => resolve_text(&format!("{RECIPE}{}", recipe.name), recipe.toml, &sets)?,
        None => resolve(args.file.as_deref(), &sets)?,
    })
}

fn checked(resolved: Resolved) -> Result<Resolved> {
    resolved.settings.validate().map_err(|reason| anyhow!(reason))?;
    Ok(resolved)
}

/// A setting as `--set` takes it. Quoted, so that no name is taken for a number or a date.
fn set(key: &str, value: String) -> String {
    format!("{key}={}", toml::Value::String(value))
}

/// Every `--set`, then what options are short for.
fn sets(args: &SettingsArgs) -> Vec<String> {
    let mut sets = args.sets.clone();
    let template = args.chat_template.as_ref().map(|path| path.display().to_string());
    sets.extend(template.map(|path| set("model.chat_template", path)));
    sets.extend(args.device.as_ref().map(|device| set("model.device", device.clone())));
    sets.extend(args.memory.as_ref().map(|limit| set("memory.limit", limit.clone())));
    sets
}

/// The model directory: the one given, or the embedded default's.
fn model(given: Option<&PathBuf>, root: &Path, places: &Places) -> Result<PathBuf> {
    match given {
        Some(path) => places.directory(path),
        None => Ok(under(root, &resolve(None, &[])?.settings.model.path)),
    }
}

/// The embedded default's paths start from `root`; those that the user gave, from where they are.
fn from_root(resolved: &mut Resolved, embedded: &Settings, root: &Path) {
    let settings = &mut resolved.settings;
    if settings.model.path == embedded.model.path {
        settings.model.path = under(root, &settings.model.path);
        resolved.model = settings.model.path.display().to_string();
    }
    if settings.data.path == embedded.data.path {
        settings.data.path = under(root, &settings.data.path);
    }
    if settings.data.held_out == embedded.data.held_out {
        settings.data.held_out = settings.data.held_out.as_ref().map(|path| under(root, path));
    }
}

/// A path as people would write it: the current folder is not named.
fn under(root: &Path, path: &Path) -> PathBuf {
    if root == Path::new(".") { path.to_owned() } else { root.join(path) }
}
