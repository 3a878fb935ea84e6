//! Continuing prompts, many at once.
//!
//! Prompts go through the model once and fill the cache; then every step adds one token to each sequence that is
//! not done. A sequence that ends leaves the batch, so the last long one does not pay for the others. Prompts with the
//! overlay and prompts without go one group after the other. What follows the prompts is the card's own decoder's, where
//! there is one (`decode.rs`).

use std::path::Path;

use burn::tensor::Tensor;
use descant_kernels::{Decoder, StepRow, best_tokens, is_cpu, read_floats};
use serde::Deserialize;

use crate::batch::Batch;
use crate::cache::KeyValueCache;
use crate::error::{Error, Result};
use crate::model::{GptOss, Pass};
use crate::overlay::{Bare, Overlay};
use crate::request::{GenerateOptions, Generated, Go, NewToken, Request, StopReason, Watch};
use crate::sample::{log_sum_exp, top_log_probabilities};

/// Most prompt tokens that go through the model at once.
const PREFILL_TOKENS: usize = 8192;
/// Longest `generation_config.json` we read.
const MAX_GENERATION_CONFIG_BYTES: u64 = 1 << 20;

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
    /// Continues each prompt; `watch` is told of every token and every end, and may end sequences early. Where it ends
    /// all, the sequences that were not done have [`StopReason::Stopped`] and what they got.
    ///
    /// Greedy results do not depend on what else is in the batch, up to rounding; random numbers do not depend on it at
    /// all.
    ///
    /// # Errors
    /// A prompt is empty, holds an id outside the vocabulary or leaves no room for a reply in the model's context; a
    /// number of its sampling is out of range; logits are not finite; the device failed, or a limit of its memory was not
    /// kept.
    pub fn generate(
        &self,
        requests: &[Request],
        overlay: &dyn Overlay,
        options: &GenerateOptions,
        watch: &mut dyn Watch,
    ) -> Result<Vec<Generated>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        self.check(requests)?;
        self.workspace().make_way(self.device())?;
        let mut run = Run::new(self.config.max_context, requests, options, watch);
        for adapter in [false, true] {
            let group: Vec<usize> = (0..requests.len())
                .filter(|&i| requests[i].adapter == adapter && requests[i].max_new_tokens > 0)
                .collect();
            let overlay: &dyn Overlay = if adapter { overlay } else { &Bare };
            self.group(&group, overlay, &mut run)?;
        }
        self.workspace().check_limit(self.device())?;
        Ok(run.finish())
    }

    fn check(&self, requests: &[Request]) -> Result<()> {
        Batch::new(requests.iter().map(|request| request.prompt.as_slice()), self.config.vocab_size)?;
        for (index, request) in requests.iter().enumerate() {
            let (tokens, context) = (request.prompt.len(), self.config.max_context);
            if tokens >= context && request.max_new_tokens > 0 {
                return Err(Error::PromptTooLong { index, tokens, context });
            }
            request.sampling.check().map_err(|reason| Error::Sampling { index, reason })?;
        }
        Ok(())
    }

    /// Continues the prompts of a group, all with the same overlay. A sequence's slot in the cache is its place there.
    fn group(&self, group: &[usize], overlay: &dyn Overlay, run: &mut Run<'_>) -> Result<()> {
        if group.is_empty() || run.ended_all {
            return Ok(());
        }
        let capacity = group.iter().map(|&sequence| run.most_tokens(sequence)).max().unwrap_or(0);
        let mut cache = KeyValueCache::new(&self.config, group.len(), capacity, &self.device().clone());
        let mut chosen = self.prefill(group, overlay, run, &mut cache)?;
        let mut slots: Vec<usize> = (0..group.len()).collect();
        if let Some(decoder) = self.decoder(overlay, &cache, group.len())? {
            return self.decode(decoder, group, chosen, &cache, run);
        }
        loop {
            let mut tokens = chosen.into_iter();
            slots.retain(|&slot| {
                let token = tokens.next().expect("a token for each active sequence");
                run.take(group[slot], token)
            });
            if slots.is_empty() || run.ended_all {
                return Ok(());
            }
            let active: Vec<usize> = slots.iter().map(|&slot| group[slot]).collect();
            let ids: Vec<u32> = active.iter().map(|&sequence| run.last(sequence)).collect();
            let logits = self.step(&slots, &ids, &vec![1; ids.len()], overlay, &mut cache);
            chosen = self.choose(logits, &active, run)?;
        }
    }

    /// Continues the prompts of a group by the card's decoder. Where every token is the likeliest one, the card goes on to
    /// the next without waiting for the host; a sequence that ended changes who takes part.
    fn decode(
        &self,
        mut decoder: Decoder,
        group: &[usize],
        mut chosen: Vec<Chosen>,
        cache: &KeyValueCache,
        run: &mut Run<'_>,
    ) -> Result<()> {
        let mut rows: Vec<StepRow> =
            (0..group.len()).map(|slot| StepRow { slot, id: 0, position: cache.length(slot) }).collect();
        let is_greedy = self.chooses_greedily(group, run);
        let mut is_changed = true;
        loop {
            let (mut tokens, before) = (chosen.into_iter(), rows.len());
            rows.retain_mut(|row| {
                let token = tokens.next().expect("a token for each active sequence");
                row.id = token.id;
                run.take(group[row.slot], token)
            });
            if rows.is_empty() || run.ended_all {
                return Ok(());
            }
            if is_changed || !is_greedy || rows.len() < before {
                decoder.set(&rows)?;
            }
            chosen = if is_greedy {
                decoder.step()?.into_iter().map(Chosen::plain).collect()
            } else {
                let active: Vec<usize> = rows.iter().map(|row| group[row.slot]).collect();
                self.choose(decoder.logits()?, &active, run)?
            };
            is_changed = false;
            for row in &mut rows {
                row.position += 1;
            }
        }
    }

    /// The token after each prompt.
    fn prefill(
        &self,
        group: &[usize],
        overlay: &dyn Overlay,
        run: &Run<'_>,
        cache: &mut KeyValueCache,
    ) -> Result<Vec<Chosen>> {
        let prompts: Vec<&[u32]> = group.iter().map(|&i| run.requests[i].prompt.as_slice()).collect();
        let mut chosen = Vec::with_capacity(prompts.len());
        let mut start = 0;
        while start < prompts.len() {
            let (mut end, mut tokens) = (start, 0);
            while end < prompts.len() && (end == start || tokens + prompts[end].len() <= PREFILL_TOKENS) {
                tokens += prompts[end].len();
                end += 1;
            }
            let slots: Vec<usize> = (start..end).collect();
            let counts: Vec<usize> = prompts[start..end].iter().map(|prompt| prompt.len()).collect();
            let logits = self.step(&slots, &prompts[start..end].concat(), &counts, overlay, cache);
            chosen.extend(self.choose(logits, &group[start..end], run)?);
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

    /// Whether the likeliest token of each is the next one, and the logits are a card's, where they can stay.
    fn chooses_greedily(&self, sequences: &[usize], run: &Run<'_>) -> bool {
        let stays = |&i: &usize| {
            let sampling = &run.requests[i].sampling;
            sampling.is_greedy() && !sampling.penalizes()
        };
        !is_cpu(self.device()) && run.options.log_probabilities.is_none() && sequences.iter().all(stays)
    }

    /// The next token of each of these sequences. On a card, what is chosen greedily is chosen where the logits are.
    fn choose(&self, logits: Tensor<2>, sequences: &[usize], run: &Run<'_>) -> Result<Vec<Chosen>> {
        if self.chooses_greedily(sequences, run) {
            let ids = best_tokens(logits)?;
            return Ok(ids.into_iter().map(Chosen::plain).collect());
        }
        let width = logits.dims()[1];
        let values = read_floats(logits)?;
        sequences.iter().zip(values.chunks_exact(width)).map(|(&i, row)| run.choose(i, row)).collect()
    }
}

/// A token that was chosen, and its log-probabilities where they are wanted.
struct Chosen {
    id: u32,
    log_probability: Option<f32>,
    top: Vec<(u32, f32)>,
}

impl Chosen {
    fn plain(id: u32) -> Self {
        Self { id, log_probability: None, top: Vec::new() }
    }
}

/// What is known of the sequences while they are continued.
struct Run<'a> {
    context: usize,
    requests: &'a [Request],
    options: &'a GenerateOptions,
    watch: &'a mut dyn Watch,
    out: Vec<Generated>,
    /// Whether an end was told, by sequence.
    done: Vec<bool>,
    /// The tokens of prompt and reply, where a penalty reads them; empty elsewhere.
    seen: Vec<Vec<u32>>,
    ended_all: bool,
}

impl<'a> Run<'a> {
    fn new(
        context: usize,
        requests: &'a [Request],
        options: &'a GenerateOptions,
        watch: &'a mut dyn Watch,
    ) -> Self {
        let nothing = |request: &Request| Generated {
            ids: Vec::new(),
            stop: if request.max_new_tokens == 0 { StopReason::Length } else { StopReason::Stopped },
            log_probabilities: Vec::new(),
            top: Vec::new(),
        };
        let seen = |request: &Request| {
            if request.sampling.penalizes() { request.prompt.clone() } else { Vec::new() }
        };
        Self {
            context,
            requests,
            options,
            watch,
            out: requests.iter().map(nothing).collect(),
            done: vec![false; requests.len()],
            seen: requests.iter().map(seen).collect(),
            ended_all: false,
        }
    }

    /// Tokens that a sequence may come to have.
    fn most_tokens(&self, sequence: usize) -> usize {
        let request = &self.requests[sequence];
        request.prompt.len().saturating_add(request.max_new_tokens).min(self.context)
    }

    fn last(&self, sequence: usize) -> u32 {
        *self.out[sequence].ids.last().expect("every active sequence has a new token")
    }

    fn choose(&self, sequence: usize, logits: &[f32]) -> Result<Chosen> {
        let (request, step) = (&self.requests[sequence], self.out[sequence].ids.len());
        if logits.iter().any(|logit| !logit.is_finite()) {
            return Err(Error::LogitsNotFinite { sequence, step });
        }
        let id = request.sampling.choose(logits, &self.seen[sequence], request.stream, step as u64);
        let Some(n) = self.options.log_probabilities else { return Ok(Chosen::plain(id)) };
        let log_probability = (f64::from(logits[id as usize]) - log_sum_exp(logits)) as f32;
        let top = if n == 0 { Vec::new() } else { top_log_probabilities(logits, n) };
        Ok(Chosen { id, log_probability: Some(log_probability), top })
    }

    /// Takes a sequence's next token; whether it goes on.
    fn take(&mut self, sequence: usize, chosen: Chosen) -> bool {
        if self.ended_all {
            return false;
        }
        let Chosen { id, log_probability, top } = chosen;
        let step = self.out[sequence].ids.len();
        let told = NewToken { sequence, step, id, log_probability, top: &top };
        let go = self.watch.token(&told);
        let (request, out) = (&self.requests[sequence], &mut self.out[sequence]);
        out.ids.push(id);
        out.log_probabilities.extend(log_probability);
        if self.options.log_probabilities.is_some_and(|n| n > 0) {
            out.top.push(top);
        }
        if request.sampling.penalizes() {
            self.seen[sequence].push(id);
        }
        let stop = if self.options.stop_ids.contains(&id) {
            StopReason::StopToken
        } else if go != Go::On {
            StopReason::Stopped
        } else if out.ids.len() >= request.max_new_tokens {
            StopReason::Length
        } else if request.prompt.len() + out.ids.len() >= self.context {
            StopReason::Context
        } else {
            return true;
        };
        out.stop = stop;
        self.done[sequence] = true;
        self.watch.ended(sequence, stop);
        self.ended_all |= go == Go::EndAll;
        false
    }

    /// What every sequence got; the ends that were not told yet are told.
    fn finish(self) -> Vec<Generated> {
        for (sequence, out) in self.out.iter().enumerate().filter(|(sequence, _)| !self.done[*sequence]) {
            self.watch.ended(sequence, out.stop);
        }
        self.out
    }
}
