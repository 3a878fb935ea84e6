//! A model that is ready to speak: loaded once, with what turns conversations into ids.

use std::path::Path;

use anyhow::{Result, anyhow};
use descant_harmony::{Conversation, Date, Message, RenderOptions, Renderer, Role};
use descant_kernels::Keep;
use descant_model::{GptOss, Overlay, Sampling, stop_ids};
use descant_train::memory::Asking;

use super::load;
use super::room::{fewer_at_once, place_for_asking};
use crate::cli::{ModelArgs, SamplingArgs};
use crate::talk::Talk;

/// The weights, and the ids that end a reply.
pub(crate) struct Speaker {
    pub(crate) model: GptOss,
    pub(crate) overlay: Box<dyn Overlay>,
    pub(crate) has_adapter: bool,
    pub(crate) stop_ids: Vec<u32>,
    /// Prompts that can be asked at once, out of those that were wanted.
    pub(crate) at_once: usize,
}

impl Speaker {
    /// Loads the model and its adapter, so placed that so much can be asked at once, by each of so many processes of this
    /// host.
    pub(crate) fn load(
        args: &ModelArgs,
        dir: &Path,
        asking: Asking,
        (device, of_host): (&str, usize),
        talk: Talk,
    ) -> Result<Self> {
        let stop_ids = stop_ids(dir)?;
        let device = load::said_device(device, talk)?;
        let limit = args.memory.bytes();
        let (placement, fits) = place_for_asking(&device, limit, &load::config(dir)?, asking, of_host)?;
        if fits.batch < asking.batch {
            talk.warn(fewer_at_once(fits, asking));
        }
        let model = load::model(dir, &device.device, placement, (limit, Keep::Auto))?;
        talk.detail(format_args!("weights: {}", model.formats()));
        let overlay = load::overlay(args.adapter.as_deref(), &model)?;
        let at_once = fits.batch as usize;
        Ok(Self { model, overlay, has_adapter: args.adapter.is_some(), stop_ids, at_once })
    }
}

/// The settings of `--temperature` and its kind.
pub(crate) fn sampling(args: &SamplingArgs) -> Result<Sampling> {
    let drawn = Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
        seed: args.seed,
    };
    drawn
        .check()
        .map_err(|reason| anyhow!("--{}", reason.replacen("repetition penalty", "repetition-penalty", 1)))?;
    Ok(if args.greedy { Sampling { temperature: 0.0, ..drawn } } else { drawn })
}

/// What is before the user's first message: instructions, and the request for a language in the words of the
/// training set. None where there is neither.
pub(crate) fn instructions(developer: Option<&str>, language: Option<&str>) -> Option<Message> {
    let text = match language {
        Some(language) => descant_evaluate::requested(language, developer),
        None => developer?.to_owned(),
    };
    Some(Message::text(Role::Developer, text))
}

/// The ids of a conversation that waits for its reply.
pub(crate) fn prompt_ids(renderer: &Renderer, conversation: &Conversation, date: Date) -> Result<Vec<u32>> {
    let options = RenderOptions { date, add_generation_prompt: true, ..RenderOptions::default() };
    Ok(renderer.render(conversation, &options)?.ids)
}
