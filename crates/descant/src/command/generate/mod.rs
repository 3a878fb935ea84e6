//! `descant generate`: continues prompts, given as texts, as ids, or as the rows of a file.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use descant_harmony::{Date, Renderer};

use super::load;
use super::speaker::sampling;
use crate::cli::Generate;
use crate::failure::Exit;
use crate::settings::check_effort;
use crate::talk::Talk;

mod asked;
mod asking;
mod file;
mod json;
mod stream;
mod text;

use asked::Asked;
use asking::{answer, sides, speaker};

/// Loads, continues, prints.
pub(crate) fn run(args: &Generate, dir: &Path, talk: Talk) -> Result<Exit> {
    load::check_dir(dir)?;
    sampling(&args.sampling)?;
    for effort in &args.effort {
        check_effort("--effort", effort).map_err(|reason| anyhow!(reason))?;
    }
    // The prompts first: they can be wrong, and the model takes long to load.
    if !args.ids.is_empty() {
        return ids(args, dir, talk);
    }
    let date = args.date.parse().with_context(|| format!("--date {}", args.date))?;
    let renderer = Renderer::load(dir, args.chat_template.as_deref())?;
    match (&args.input, &args.out) {
        (Some(input), Some(out)) => file::run(args, dir, &renderer, date, (input, out), talk),
        _ => texts(args, dir, &renderer, date, talk),
    }
}

/// Continues ids.
fn ids(args: &Generate, dir: &Path, talk: Talk) -> Result<Exit> {
    let sides = sides(args, args.compare);
    let asked: Vec<Asked> = (0..args.n)
        .flat_map(|sample| sides.iter().map(move |side| (sample, *side)))
        .map(|(sample, side)| Asked { sample, side, ids: args.ids.clone(), ..Asked::default() })
        .collect();
    let speaker = speaker(args, dir, &asked, talk)?;
    let replies = answer(args, &speaker, &asked)?;
    for (asked, reply) in asked.iter().zip(&replies) {
        let shown = if args.json {
            json::of_ids(asked, reply, replies.len() > 1)?.to_string()
        } else {
            let ids: Vec<String> = reply.ids.iter().map(ToString::to_string).collect();
            ids.join(",")
        };
        talk.data(shown)?;
        if !args.json && args.logprobs.is_some() {
            talk.data(text::log_probabilities(reply, |id| id.to_string()).trim_end())?;
        }
    }
    Ok(Exit::Success)
}

/// Answers texts.
fn texts(args: &Generate, dir: &Path, renderer: &Renderer, date: Date, talk: Talk) -> Result<Exit> {
    let compare = args.compare || (args.model.adapter.is_some() && !args.no_compare);
    let asked = asked::texts(args, renderer, date, &sides(args, compare))?;
    let speaker = speaker(args, dir, &asked, talk)?;
    let template = renderer.template();
    talk.item("template", format_args!("{} (sha256 {})", template.source(), template.sha256()));
    if args.stream {
        return stream::run(args, &speaker, renderer, &asked, talk);
    }
    let replies = answer(args, &speaker, &asked)?;
    if args.json {
        json::print(&asked, &replies, renderer, talk)?;
    } else {
        text::print(args, &asked, &replies, renderer, talk)?;
    }
    Ok(Exit::Success)
}
