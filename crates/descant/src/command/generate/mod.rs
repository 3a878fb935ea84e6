//! `descant generate`: continues prompts, given as texts, as ids, or as the rows of a file.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use descant_harmony::{Date, Renderer};

use super::load;
use super::speaker::sampling;
use crate::cards::{self, Role};
use crate::cli::Generate;
use crate::failure::{Exit, Hinted};
use crate::settings::check_effort;
use crate::talk::Talk;

mod asked;
mod asking;
mod file;
mod json;
mod stream;
mod text;

use asked::Asked;
use asking::{Here, answer, sides, speaker};

/// Loads, continues, prints: alone, as one of several processes, or as the one that starts them.
pub(crate) fn run(args: &Generate, dir: &Path, talk: Talk) -> Result<Exit> {
    load::check_dir(dir)?;
    sampling(&args.sampling)?;
    for effort in &args.effort {
        check_effort("--effort", effort).map_err(|reason| anyhow!(reason))?;
    }
    let wanted = &args.model.device.name;
    match cards::role(args.cards.as_ref(), cards::place()?, wanted)? {
        Role::Alone(device) => {
            let device = device.unwrap_or_else(|| wanted.clone());
            work(args, dir, &Here { device, team: None }, talk)
        }
        Role::Starts(devices) => cards::launch(&devices),
        Role::Member(_) if args.stream => {
            let error = anyhow!("--stream shows what one process generates, and this is one of several");
            Err(Hinted::new(error, "leave --stream out, or unset RANK and WORLD_SIZE").into())
        }
        Role::Member(place) => cards::in_team(&place, asking::facts(args), talk, |team, _, talk| {
            let here = Here { device: team.device(wanted)?, team: Some(team) };
            work(args, dir, &here, talk)
        }),
    }
}

/// The same in one process.
fn work(args: &Generate, dir: &Path, here: &Here<'_>, talk: Talk) -> Result<Exit> {
    // The prompts first: they can be wrong, and the model takes long to load.
    if !args.ids.is_empty() {
        return ids(args, dir, here, talk);
    }
    let date = args.date.parse().with_context(|| format!("--date {}", args.date))?;
    let renderer = Renderer::load(dir, args.chat_template.as_deref())?;
    match (&args.input, &args.out) {
        (Some(input), Some(out)) => file::run(args, dir, &renderer, date, (input, out), here, talk),
        _ => texts(args, dir, &renderer, date, here, talk),
    }
}

/// Continues ids.
fn ids(args: &Generate, dir: &Path, here: &Here<'_>, talk: Talk) -> Result<Exit> {
    let sides = sides(args, args.compare);
    let asked: Vec<Asked> = (0..args.n)
        .flat_map(|sample| sides.iter().map(move |side| (sample, *side)))
        .map(|(sample, side)| Asked { sample, side, ids: args.ids.clone(), ..Asked::default() })
        .collect();
    let speaker = speaker(args, dir, &asked, here, talk)?;
    let replies = answer(args, &speaker, &asked, here)?;
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
fn texts(
    args: &Generate,
    dir: &Path,
    renderer: &Renderer,
    date: Date,
    here: &Here<'_>,
    talk: Talk,
) -> Result<Exit> {
    let compare = args.compare || (args.model.adapter.is_some() && !args.no_compare);
    let asked = asked::texts(args, renderer, date, &sides(args, compare))?;
    let speaker = speaker(args, dir, &asked, here, talk)?;
    let template = renderer.template();
    talk.item("template", format_args!("{} (sha256 {})", template.source(), template.sha256()));
    if args.stream {
        return stream::run(args, &speaker, renderer, &asked, talk);
    }
    let replies = answer(args, &speaker, &asked, here)?;
    if !here.is_first() {
        return Ok(Exit::Success);
    }
    if args.json {
        json::print(&asked, &replies, renderer, talk)?;
    } else {
        text::print(args, &asked, &replies, renderer, talk)?;
    }
    Ok(Exit::Success)
}
