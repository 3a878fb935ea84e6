//! `descant init`: writes the commented settings of a real model, those of a recipe, or the schema of all settings.

use std::path::Path;

use anyhow::{Result, anyhow};

use crate::cli::Init;
use crate::failure::{Exit, Hinted};
use crate::settings::{Recipe, init_toml, schema};
use crate::talk::Talk;

/// Where settings go, unless it is said.
const SETTINGS: &str = "run.toml";
/// Standard output.
const SCREEN: &str = "-";

/// Writes the settings, and the files that those of a recipe name, where it was asked for.
pub(crate) fn run(args: &Init, talk: Talk) -> Result<Exit> {
    let recipe = args.recipe.as_deref().map(Recipe::find).transpose()?;
    let (text, usual) = if args.schema {
        (serde_json::to_string_pretty(&schema())? + "\n", SCREEN)
    } else {
        (recipe.map_or_else(init_toml, |recipe| recipe.toml.to_owned()), SETTINGS)
    };
    let out = args.out.as_deref().unwrap_or(Path::new(usual));
    if out == Path::new(SCREEN) {
        talk.data(text.trim_end())?;
        return Ok(Exit::Success);
    }
    if out.exists() && !args.force {
        let error = anyhow!("{} exists", out.display());
        return Err(Hinted::new(error, "give another --out, or --force to replace it").into());
    }
    for written in recipe.map(Recipe::lay_out).transpose()?.unwrap_or_default() {
        talk.say(format_args!("wrote {written}"));
    }
    descant_files::write_atomic(out, text.as_bytes())?;
    talk.say(format_args!("wrote {}", out.display()));
    if args.schema {
        talk.hint(format_args!(
            "`#:schema {}` as the first line of run.toml shows it to editors",
            out.display()
        ));
    } else {
        talk.hint(format_args!("descant train {}", out.display()));
    }
    Ok(Exit::Success)
}
