//! `descant init`: writes the commented settings.

use std::path::Path;

use anyhow::{Result, anyhow};

use crate::cli::Init;
use crate::failure::{Exit, Hinted};
use crate::settings::{DEFAULT_TOML, Recipe};
use crate::talk::Talk;

/// Writes `default.toml`, or the settings of a recipe with the files that they name, where it was asked for.
pub(crate) fn run(args: &Init, talk: Talk) -> Result<Exit> {
    let recipe = args.recipe.as_deref().map(Recipe::find).transpose()?;
    let text = recipe.map_or(DEFAULT_TOML, |recipe| recipe.toml);
    if args.out == Path::new("-") {
        talk.data(text.trim_end())?;
        return Ok(Exit::Success);
    }
    if args.out.exists() && !args.force {
        let error = anyhow!("{} exists", args.out.display());
        return Err(Hinted::new(error, "give another --out, or --force to replace it").into());
    }
    for written in recipe.map(Recipe::lay_out).transpose()?.unwrap_or_default() {
        talk.say(format_args!("wrote {written}"));
    }
    descant_files::write_atomic(&args.out, text.as_bytes())?;
    talk.say(format_args!("wrote {}", args.out.display()));
    talk.hint(format_args!("descant train {}", args.out.display()));
    Ok(Exit::Success)
}
