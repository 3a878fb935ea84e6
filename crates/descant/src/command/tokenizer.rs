//! `descant tokenizer build`: the published tokenizer files of gpt-oss, made without a download.

use anyhow::{Context as _, Result, anyhow};
use descant_files::{read_bounded, write_atomic};
use descant_harmony::{limits, vocabulary};

use crate::cli::{Tokenizer, TokenizerBuild, TokenizerCommand};
use crate::failure::{Exit, Hinted};
use crate::talk::Talk;

/// Makes what was asked for.
pub(crate) fn run(args: &Tokenizer, talk: Talk) -> Result<Exit> {
    match &args.command {
        TokenizerCommand::Build(args) => build(args, talk),
    }
}

/// Writes the files; one that is there and the same is left alone.
fn build(args: &TokenizerBuild, talk: Talk) -> Result<Exit> {
    let files = vocabulary::gpt_oss_files()?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("create {}", args.out.display()))?;
    let mut pending = Vec::new();
    for file in &files {
        let path = args.out.join(file.name);
        let there = path.exists();
        let same =
            there && read_bounded(&path, limits::TOKENIZER_BYTES).is_ok_and(|bytes| bytes == file.bytes);
        if there && !same && !args.force {
            let error = anyhow!("{} exists and is another file", path.display());
            return Err(Hinted::new(error, "give another --out, or --force to replace it").into());
        }
        if !same {
            pending.push((path, file));
        }
    }
    for (path, file) in pending {
        write_atomic(&path, &file.bytes)?;
    }
    for file in &files {
        talk.data(format_args!("{}  {}", descant_files::sha256(&file.bytes), file.name))?;
    }
    talk.say(format_args!("the tokenizer of gpt-oss, as published, is in {}", args.out.display()));
    Ok(Exit::Success)
}
