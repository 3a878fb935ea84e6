//! Asking the model: whom, how, and with which random numbers.

use std::path::Path;

use anyhow::Result;
use descant_files::{sha256, sha256_file};
use descant_model::{Ended, GenerateOptions, Generated, InOrder, Request, identity_files};
use descant_train::memory::Asking;
use descant_workers::Facts;
use serde_json::{Map, Value as Json};

use super::asked::{Asked, Side};
use crate::cards::{Answerers, Team, Told};
use crate::cli::Generate;
use crate::command::examination::adapter_sha256;
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

/// Where this process answers.
pub(super) struct Here<'a> {
    pub(super) device: String,
    /// The others, where there are any.
    pub(super) team: Option<&'a Team>,
}

impl Here<'_> {
    /// Whether it prints and writes.
    pub(super) fn is_first(&self) -> bool {
        self.team.is_none_or(Team::is_first)
    }
}

/// Loads the model; several processes first compare what their replies depend on.
pub(super) fn speaker(
    args: &Generate,
    dir: &Path,
    asked: &[Asked],
    here: &Here<'_>,
    talk: Talk,
) -> Result<Speaker> {
    if let Some(team) = here.team {
        let prompts = asked.iter().map(|asked| sha256(&bytes_of(&asked.ids)) + asked.side.as_str());
        let prompts = sha256(prompts.collect::<String>().as_bytes());
        let mut facts = vec![("prompts".to_owned(), prompts)];
        facts.extend(speaks(args, dir)?.iter().map(|(name, value)| (name.clone(), value.to_string())));
        team.agree(&facts)?;
    }
    let longest = asked.iter().map(|asked| asked.ids.len()).max().unwrap_or(0);
    let (batch, tokens) = (args.batch.min(asked.len()) as u64, (longest + args.max_new_tokens) as u64);
    let asking = Asking { batch, tokens, scored: 0 };
    let of_host = here.team.map_or(1, Team::on_this_host);
    Speaker::load(&args.model, dir, asking, (&here.device, of_host), talk)
}

/// Which model and adapter reply, by hashes of their files.
pub(super) fn speaks(args: &Generate, dir: &Path) -> Result<Map<String, Json>> {
    let mut model = Map::new();
    for path in identity_files(dir)? {
        let name = path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
        model.insert(name.to_owned(), descant_files::fingerprint(&path)?.into());
    }
    let adapter = args.model.adapter.as_deref();
    let config = adapter.map(|folder| sha256_file(&folder.join("adapter_config.json"))).transpose()?;
    let mut speaks = Map::new();
    speaks.insert("model".to_owned(), model.into());
    speaks.insert("adapter".to_owned(), adapter.map(adapter_sha256).transpose()?.into());
    speaks.insert("adapter_config".to_owned(), config.into());
    Ok(speaks)
}

/// What the replies depend on beside model and prompts; the same in all processes.
pub(super) fn facts(args: &Generate) -> Facts {
    let Generate { n, batch, max_new_tokens, ignore_eos, logprobs, sampling, effort, .. } = args;
    let facts = [
        ("--n", n.to_string()),
        ("--batch", batch.to_string()),
        ("--max-new-tokens", max_new_tokens.to_string()),
        ("--ignore-eos", ignore_eos.to_string()),
        ("--logprobs", format!("{logprobs:?}")),
        ("--effort", effort.join(",")),
        ("sampling", format!("{sampling:?}")),
    ];
    facts.map(|(name, value)| (name.to_owned(), value)).to_vec()
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
    let hash = sha256(&bytes_of(ids));
    let first = hash.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    first.expect("a hash is hexadecimal digits").wrapping_add(sample as u64)
}

fn bytes_of(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

/// Hands over each reply in the order of what is asked, as soon as it can be: of several processes at rank 0, and
/// nowhere else.
pub(super) fn answer_each(
    args: &Generate,
    speaker: &Speaker,
    asked: &[Asked],
    here: &Here<'_>,
    keep: &mut dyn FnMut(usize, &Generated) -> Result<()>,
) -> Result<()> {
    let (model, overlay, options) = (&speaker.model, &*speaker.overlay, options(args, speaker));
    let requests = asked.iter().map(|asked| request(args, asked)).collect::<Result<Vec<_>>>()?;
    if let Some(Team { group }) = here.team {
        return Answerers { group, model, overlay, options }.ask(&requests, &mut |what| match what {
            Told::Count(_) => Ok(()),
            Told::Replies(range, replies) => range.zip(&replies).try_for_each(|(at, reply)| keep(at, reply)),
        });
    }
    let mut failed = None;
    let mut watch = InOrder::new(requests.len(), |ended| {
        if let Ended::Next(at, reply) = ended {
            failed = keep(at, reply).err();
        }
        failed.is_none()
    });
    model.generate(&requests, overlay, &options, &mut watch)?;
    failed.map_or(Ok(()), Err)
}

/// All replies, in the order of what is asked.
pub(super) fn answer(
    args: &Generate,
    speaker: &Speaker,
    asked: &[Asked],
    here: &Here<'_>,
) -> Result<Vec<Generated>> {
    let mut replies = Vec::new();
    answer_each(args, speaker, asked, here, &mut |_, reply| {
        replies.push(reply.clone());
        Ok(())
    })?;
    Ok(replies)
}
