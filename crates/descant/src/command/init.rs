//! `descant init`: writes the commented settings of a real model, or those of a recipe.

use std::path::Path;

use anyhow::{Result, anyhow};

use crate::cli::Init;
use crate::failure::{Exit, Hinted};
use crate::settings::{Recipe, init_toml};
use crate::talk::Talk;

/// Writes the settings, and the files that those of a recipe name, where it was asked for.
pub(crate) fn run(args: &Init, talk: Talk) -> Result<Exit> {
    let recipe = args.recipe.as_deref().map(Recipe::find).transpose()?;
    let text = recipe.map_or_else(init_toml, |recipe| recipe.toml.to_owned());
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
