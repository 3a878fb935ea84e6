//! Asking the model: whom, how, and with which random numbers.

use std::path::Path;

use anyhow::Result;
use descant_model::{GenerateOptions, Generated, Request, Unwatched};
use descant_train::memory::Asking;

use super::asked::{Asked, Side};
use crate::cli::Generate;
use crate::command::speaker::{Speaker, sampling};
use crate::talk::Talk;

/// Who is asked.
pub(super) fn sides(args: &Generate, compare: bool) -> Vec<Side> {
    match (args.model.adapter.is_some(), compare) {
        (true, true) => vec![Side::Base, Side::Adapter],
        (true, false) => vec![Side::Adapter],
        (false, _) => vec![Side::Base],
    }
}

pub(super) fn speaker(args: &Generate, dir: &Path, asked: &[Asked], talk: Talk) -> Result<Speaker> {
    let longest = asked.iter().map(|asked| asked.ids.len()).max().unwrap_or(0);
    let (batch, tokens) = (args.batch.min(asked.len()) as u64, (longest + args.max_new_tokens) as u64);
    let asking = Asking { batch, tokens, scored: 0 };
    Speaker::load(&args.model, dir, asking, talk)
}

pub(super) fn options(args: &Generate, speaker: &Speaker) -> GenerateOptions {
    let stop_ids = if args.ignore_eos { Vec::new() } else { speaker.stop_ids.clone() };
    let at_once = Some(args.batch.min(speaker.at_once));
    GenerateOptions { stop_ids, log_probabilities: args.logprobs, at_once, ..GenerateOptions::default() }
}

/// What the model is asked. The random numbers of a reply depend on the seed, the prompt and the number of its sample, so
/// that a reply is the same whatever else is asked, and different prompts draw different ones.
pub(super) fn request(args: &Generate, asked: &Asked) -> Result<Request> {
    Ok(Request {
        prompt: asked.ids.clone(),
        max_new_tokens: args.max_new_tokens,
        adapter: asked.side == Side::Adapter,
        sampling: sampling(&args.sampling)?,
        stream: stream_of(&asked.ids, asked.sample),
    })
}

fn stream_of(ids: &[u32], sample: usize) -> u64 {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let hash = descant_files::sha256(&bytes);
    let first = hash.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    first.expect("a hash is hexadecimal digits").wrapping_add(sample as u64)
}

/// The replies, in the order of what is asked.
pub(super) fn answer(args: &Generate, speaker: &Speaker, asked: &[Asked]) -> Result<Vec<Generated>> {
    let options = options(args, speaker);
    let requests = asked.iter().map(|asked| request(args, asked)).collect::<Result<Vec<_>>>()?;
    Ok(speaker.model.generate(&requests, &*speaker.overlay, &options, &mut Unwatched)?)
}
