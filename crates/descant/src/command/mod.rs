//! One file a command: arguments in, library called, result rendered.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use crate::cli::{Cli, Command, SettingsArgs};
use crate::failure::Exit;
use crate::settings::{Resolved, Settings, resolve};
use crate::talk::Talk;

mod evaluate;
mod generate;
mod identity;
mod init;
mod load;
mod measure;
mod rows;
mod score;
mod summary;
mod train;

/// Runs the command that was asked for.
pub(crate) fn run(cli: &Cli, talk: Talk) -> Result<Exit> {
    let root = &cli.global.root;
    match &cli.command {
        Command::Train(args) => train::run(args, &settings(&args.settings, root)?, talk),
        Command::Evaluate(args) => evaluate::run(args, &settings(&args.settings, root)?, talk),
        Command::Generate(args) => generate::run(args, &model(args.model.model.as_ref(), root)?, talk),
        Command::Score(args) => score::run(args, &model(args.model.model.as_ref(), root)?, talk),
        Command::Init(args) => init::run(args, talk),
    }
}

/// The settings that hold, checked.
fn settings(args: &SettingsArgs, root: &Path) -> Result<Resolved> {
    let mut resolved = resolve(args.file.as_deref(), &args.sets)?;
    resolved.settings.validate().map_err(|reason| anyhow!(reason))?;
    if args.file.is_none() {
        from_root(&mut resolved, &resolve(None, &[])?.settings, root);
    }
    Ok(resolved)
}

/// The model directory: the one given, or the embedded default's.
fn model(given: Option<&PathBuf>, root: &Path) -> Result<PathBuf> {
    match given {
        Some(path) => Ok(path.clone()),
        None => Ok(under(root, &resolve(None, &[])?.settings.model.path)),
    }
}

/// The embedded default's paths start from `root`; those that the user gave, from where they are.
fn from_root(resolved: &mut Resolved, embedded: &Settings, root: &Path) {
    let settings = &mut resolved.settings;
    if settings.model.path == embedded.model.path {
        settings.model.path = under(root, &settings.model.path);
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
