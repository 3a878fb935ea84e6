//! `descant init`: writes the commented settings.

use std::path::Path;

use anyhow::{Result, anyhow};

use crate::cli::Init;
use crate::failure::{Exit, Hinted};
use crate::settings::DEFAULT_TOML;
use crate::talk::Talk;

/// Writes `default.toml` where it was asked for.
pub(crate) fn run(args: &Init, talk: Talk) -> Result<Exit> {
    if args.out == Path::new("-") {
        talk.data(DEFAULT_TOML.trim_end())?;
        return Ok(Exit::Success);
    }
    if args.out.exists() && !args.force {
        let error = anyhow!("{} exists", args.out.display());
        return Err(Hinted::new(error, "give another --out, or --force to replace it").into());
    }
    descant_files::write_atomic(&args.out, DEFAULT_TOML.as_bytes())?;
    talk.say(format_args!("wrote {}", args.out.display()));
    talk.hint(format_args!("descant train {}", args.out.display()));
    Ok(Exit::Success)
}
