//! Continuing prompts, many at once.
//!
//! Prompts go through the model once and fill the cache; then every step adds one token to each sequence that is
//! not done. A sequence that ends leaves the batch, so the last long one does not pay for the others.

use std::path::Path;

use burn::tensor::Tensor;
use descant_kernels::{best_tokens, read_floats};
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::cache::KeyValueCache;
use crate::error::{Error, Result};
use crate::model::{GptOss, Pass};
use crate::overlay::Overlay;
use crate::sample::{Sampling, pick};

/// Most prompt tokens that go through the model at once.
const PREFILL_TOKENS: usize = 8192;
/// Longest `generation_config.json` we read.
const MAX_GENERATION_CONFIG_BYTES: u64 = 1 << 20;

/// How to continue.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// New tokens at most, for each prompt.
    pub max_new_tokens: usize,
    /// Ids after which a sequence is done; empty to go on to the end.
    pub stop_ids: Vec<u32>,
    /// How a token is chosen.
    pub sampling: Sampling,
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// A stop id came; it is the last of the new tokens.
    StopToken,
    /// `max_new_tokens` was reached.
    Length,
}

/// A prompt's continuation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Generated {
    /// New tokens only, the stop token included.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub stop: StopReason,
}

/// The stop ids of a model directory: `eos_token_id` of `generation_config.json`, else of `config.json`.
///
/// # Errors
/// The file cannot be read, or says no ids.
pub fn stop_ids(dir: &Path) -> Result<Vec<u32>> {
    #[derive(Deserialize)]
    struct File {
        eos_token_id: Option<Ids>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Ids {
        One(u32),
        Many(Vec<u32>),
    }
    let stated = |path: &Path| -> Result<Option<Vec<u32>>> {
        let bytes = descant_files::read_bounded(path, MAX_GENERATION_CONFIG_BYTES)?;
        let file: File = serde_json::from_slice(&bytes)
            .map_err(|e| Error::Config { path: path.to_owned(), reason: e.to_string() })?;
        Ok(match file.eos_token_id {
            Some(Ids::One(id)) => Some(vec![id]),
            Some(Ids::Many(ids)) if !ids.is_empty() => Some(ids),
            _ => None,
        })
    };
    let generation = dir.join("generation_config.json");
    if generation.exists()
        && let Some(ids) = stated(&generation)?
    {
        return Ok(ids);
    }
    let config = dir.join("config.json");
    stated(&config)?.ok_or_else(|| {
        let reason = "missing field `eos_token_id`, here and in generation_config.json";
        Error::Config { path: config, reason: reason.into() }
    })
}

impl GptOss {
    /// Continues each prompt. `progress` is told after each step how many sequences are done.
    ///
    /// Greedy results do not depend on what else is in the batch, up to rounding.
    ///
    /// # Errors
    /// A prompt is empty or holds an id outside the vocabulary, the device failed, or a limit of its memory was not kept.
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        overlay: &dyn Overlay,
        options: &GenerateOptions,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Generated>> {
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        Batch::new(prompts.iter().map(Vec::as_slice), self.config.vocab_size)?;
        let mut out: Vec<_> =
            prompts.iter().map(|_| Generated { ids: Vec::new(), stop: StopReason::Length }).collect();
        if options.max_new_tokens == 0 {
            return Ok(out);
        }
        self.workspace().make_way(self.device())?;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let capacity = longest + options.max_new_tokens;
        let mut cache = KeyValueCache::new(&self.config, prompts.len(), capacity, &self.device().clone());
        let mut active: Vec<usize> = (0..prompts.len()).collect();
        let mut chosen = self.prefill(prompts, overlay, options.sampling, &mut cache)?;
        for step in 0..options.max_new_tokens {
            let mut ids = chosen.into_iter();
            active.retain(|&slot| {
                let id = ids.next().expect("an id for each active sequence");
                out[slot].ids.push(id);
                let stopped = options.stop_ids.contains(&id);
                if stopped {
                    out[slot].stop = StopReason::StopToken;
                }
                !stopped
            });
            progress(prompts.len() - active.len());
            if active.is_empty() || step + 1 == options.max_new_tokens {
                break;
            }
            let ids: Vec<u32> =
                active.iter().map(|&slot| *out[slot].ids.last().expect("just pushed")).collect();
            let logits = self.step(&active, &ids, &vec![1; ids.len()], overlay, &mut cache);
            chosen = choose(logits, options.sampling, &active, step + 1)?;
        }
        progress(prompts.len());
        self.workspace().check_limit(self.device())?;
        Ok(out)
    }

    /// The token after each prompt.
    fn prefill(
        &self,
        prompts: &[Vec<u32>],
        overlay: &dyn Overlay,
        sampling: Sampling,
        cache: &mut KeyValueCache,
    ) -> Result<Vec<u32>> {
        let mut chosen = Vec::with_capacity(prompts.len());
        let mut start = 0;
        while start < prompts.len() {
            let (mut end, mut tokens) = (start, 0);
            while end < prompts.len() && (end == start || tokens + prompts[end].len() <= PREFILL_TOKENS) {
                tokens += prompts[end].len();
                end += 1;
            }
            let slots: Vec<usize> = (start..end).collect();
            let counts: Vec<usize> = prompts[start..end].iter().map(Vec::len).collect();
            let logits = self.step(&slots, &prompts[start..end].concat(), &counts, overlay, cache);
            chosen.extend(choose(logits, sampling, &slots, 0)?);
            start = end;
        }
        Ok(chosen)
    }

    /// Adds `counts` tokens to the sequences in `slots`; logits after the last token of each, `[slots, vocabulary]`.
    fn step(
        &self,
        slots: &[usize],
        ids: &[u32],
        counts: &[usize],
        overlay: &dyn Overlay,
        cache: &mut KeyValueCache,
    ) -> Tensor<2> {
        let (positions, rows, segments) = cache.reserve(slots, counts);
        let ends: Vec<i32> =
            segments.as_slice().iter().map(|s| (s.query_start + s.query_len - 1) as i32).collect();
        let cache = Some((cache, self.indices(rows)));
        let hidden = self.forward(Pass { ids, positions: &positions, segments, cache }, overlay);
        self.logits(hidden.select(0, self.indices(ends)))
    }
}

/// The token of each sequence in `slots` at `step`. What is chosen greedily is chosen where the logits are.
fn choose(logits: Tensor<2>, sampling: Sampling, slots: &[usize], step: usize) -> Result<Vec<u32>> {
    if sampling == Sampling::Greedy {
        return Ok(best_tokens(logits)?);
    }
    let width = logits.dims()[1];
    let values = read_floats(logits)?;
    let rows = slots.iter().zip(values.chunks_exact(width));
    Ok(rows.map(|(slot, row)| pick(row, &sampling, *slot as u64, step as u64)).collect())
}
