//! `descant generate`: continues one prompt, given as text or as ids.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use descant_harmony::{Conversation, Message, RenderOptions, Renderer, Role, TextEncoder as _};
use descant_kernels::Keep;
use descant_model::{GenerateOptions, Generated, GptOss, Overlay, Request, Sampling, Unwatched, stop_ids};
use descant_train::memory::Asking;
use serde_json::json;

use super::load;
use super::room::place_for_asking;
use crate::cli::Generate;
use crate::failure::Exit;
use crate::report::{Sample, compared};
use crate::settings::check_effort;
use crate::talk::Talk;

/// Width of two columns where nobody says how wide the terminal is.
const WIDTH: usize = 100;

/// Loads, continues, prints.
pub(crate) fn run(args: &Generate, dir: &Path, talk: Talk) -> Result<Exit> {
    let device = load::device(&args.model.device)?;
    load::check_dir(dir)?;
    let options = options(args, dir)?;
    let sampling = sampling(args)?;
    // The prompt first: it can be wrong, and the model takes long to load.
    let text = args.prompt.as_deref().map(|user| prompt(args, dir, user)).transpose()?;
    let tokens = text.as_ref().map_or(args.ids.len(), |(_, ids)| ids.len()) + args.max_new_tokens;
    let asking = Asking { batch: 1, tokens: tokens as u64 };
    let placement = place_for_asking(&device, args.model.memory, &load::config(dir)?, asking)?;
    let model = load::model(dir, &device.device, placement)?;
    model.workspace().set(args.model.memory, Keep::Auto);
    talk.detail(format_args!("weights: {}", model.formats()));
    let overlay = load::overlay(args.model.adapter.as_deref(), &model)?;
    let request = |ids: &[u32], adapter| Request {
        prompt: ids.to_vec(),
        max_new_tokens: args.max_new_tokens,
        adapter,
        sampling,
        stream: 0,
    };
    match text {
        None => {
            let generated = complete(&model, &*overlay, request(&args.ids, true), &options)?;
            let ids: Vec<String> = generated.ids.iter().map(ToString::to_string).collect();
            let shown = if args.json { serde_json::to_string(&generated)? } else { ids.join(",") };
            talk.data(shown)?;
        }
        Some((renderer, ids)) => {
            let template = renderer.template();
            talk.item("template", format_args!("{} (sha256 {})", template.source(), template.sha256()));
            let new = complete(&model, &*overlay, request(&ids, true), &options)?;
            let base = args
                .model
                .adapter
                .as_ref()
                .map(|_| complete(&model, &*overlay, request(&ids, false), &options))
                .transpose()?;
            talk.data(show(args, &renderer, &new, base.as_ref())?)?;
        }
    }
    Ok(Exit::Success)
}

fn options(args: &Generate, dir: &Path) -> Result<GenerateOptions> {
    let stop_ids = if args.ignore_eos { Vec::new() } else { stop_ids(dir)? };
    Ok(GenerateOptions { stop_ids, log_probabilities: None })
}

fn sampling(args: &Generate) -> Result<Sampling> {
    let drawn =
        Sampling { temperature: args.temperature, top_p: args.top_p, seed: args.seed, ..Sampling::default() };
    let sampling = if args.greedy { Sampling::GREEDY } else { drawn };
    sampling.check().map_err(|reason| anyhow!("--{reason}"))?;
    Ok(sampling)
}

/// The ids of a rendered conversation that waits for its reply.
fn prompt(args: &Generate, dir: &Path, user: &str) -> Result<(Renderer, Vec<u32>)> {
    check_effort("--effort", &args.effort).map_err(|reason| anyhow!(reason))?;
    let date = args.date.parse().with_context(|| format!("--date {}", args.date))?;
    let renderer = Renderer::load(dir, args.chat_template.as_deref())?;
    let developer = args.developer.as_ref().map(|text| Message::text(Role::Developer, text));
    let messages = developer.into_iter().chain([Message::text(Role::User, user)]).collect();
    let conversation = Conversation::new(messages).with_effort(&args.effort);
    let options = RenderOptions { date, add_generation_prompt: true, ..RenderOptions::default() };
    let ids = renderer.render(&conversation, &options)?.ids;
    Ok((renderer, ids))
}

fn complete(
    model: &GptOss,
    overlay: &dyn Overlay,
    request: Request,
    options: &GenerateOptions,
) -> Result<Generated> {
    let generated = model.generate(&[request], overlay, options, &mut Unwatched)?;
    generated.into_iter().next().context("one prompt has one continuation")
}

/// What is printed for a text prompt. `base` is the bare model's reply when an adapter wrote the other.
fn show(args: &Generate, renderer: &Renderer, new: &Generated, base: Option<&Generated>) -> Result<String> {
    let text = |generated: &Generated| renderer.tokenizer().decode(&generated.ids);
    let json = |generated: &Generated| -> Result<serde_json::Value> {
        Ok(json!({"ids": generated.ids, "stop": generated.stop, "text": text(generated)?}))
    };
    if args.json {
        let mut value = json(new)?;
        value["template_sha256"] = renderer.template().sha256().into();
        if let Some(base) = base {
            value["base"] = json(base)?;
        }
        return Ok(value.to_string());
    }
    let Some(base) = base else { return Ok(text(new)?) };
    let sample = Sample {
        suite: String::new(),
        id: String::new(),
        language: None,
        effort: args.effort.clone(),
        asked: None,
        user: args.prompt.clone().unwrap_or_default(),
        before: text(base)?,
        after: Some(text(new)?),
    };
    Ok(compared(&sample, WIDTH).trim_end().to_owned())
}
