//! What is known of the sequences while they are continued, and what is reported of them.

use descant_kernels::{Drawn, DrawnRow};

use crate::error::{Error, Result};
use crate::request::{GenerateOptions, Generated, Go, NewToken, Request, StopReason, Watch};
use crate::sample::{log_sum_exp, top_log_probabilities};

/// A token that was chosen, and its log-probabilities where they are wanted.
pub(crate) struct Chosen {
    pub(crate) id: u32,
    log_probability: Option<f32>,
    top: Vec<(u32, f32)>,
}

impl Chosen {
    pub(crate) fn plain(id: u32) -> Self {
        Self { id, log_probability: None, top: Vec::new() }
    }
}

/// What is known of the sequences while they are continued.
pub(crate) struct Run<'a> {
    context: usize,
    pub(crate) requests: &'a [Request],
    pub(crate) options: &'a GenerateOptions,
    watch: &'a mut dyn Watch,
    out: Vec<Generated>,
    /// Whether an end was reported, by sequence.
    done: Vec<bool>,
    /// The tokens of prompt and reply, where a penalty reads them; empty elsewhere.
    seen: Vec<Vec<u32>>,
    pub(crate) ended_all: bool,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
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
    pub(crate) fn most_tokens(&self, sequence: usize) -> usize {
        let request = &self.requests[sequence];
        request.prompt.len().saturating_add(request.max_new_tokens).min(self.context)
    }

    /// A sequence's last token.
    pub(crate) fn last(&self, sequence: usize) -> u32 {
        let last = self.out[sequence].ids.last().or_else(|| self.requests[sequence].prompt.last());
        *last.expect("a prompt is not empty")
    }

    /// Whether a sequence's next token is the one with the largest logit, and nothing else of them is wanted.
    pub(crate) fn takes_the_likeliest(&self, sequence: usize) -> bool {
        let sampling = &self.requests[sequence].sampling;
        sampling.is_greedy() && !sampling.penalizes() && self.options.log_probabilities.is_none()
    }

    /// Whether more of the logits is wanted than what is drawn and its probability.
    pub(crate) fn wants_logits(&self) -> bool {
        self.options.log_probabilities.is_some_and(|likeliest| likeliest > 0)
    }

    /// How a sequence's next token is drawn.
    pub(crate) fn draw(&self, sequence: usize) -> DrawnRow<'_> {
        let request = &self.requests[sequence];
        DrawnRow {
            draw: request.sampling.draw(request.stream),
            step: self.out[sequence].ids.len() as u32,
            seen: &self.seen[sequence],
            wants_probability: self.options.log_probabilities.is_some(),
        }
    }

    /// A token that was drawn for a sequence.
    ///
    /// # Errors
    /// Its logits are not finite.
    pub(crate) fn drawn(&self, sequence: usize, drawn: &Drawn) -> Result<Chosen> {
        let step = self.out[sequence].ids.len();
        let id = drawn.id.ok_or(Error::LogitsNotFinite { sequence, step })?;
        Ok(Chosen { id, log_probability: drawn.log_probability(), top: Vec::new() })
    }

    /// The next token of a sequence from its logits.
    ///
    /// # Errors
    /// They are not finite.
    pub(crate) fn choose(&self, sequence: usize, logits: &[f32]) -> Result<Chosen> {
        let chosen = self.drawn(sequence, &self.draw(sequence).draw(logits))?;
        let Some(n) = self.options.log_probabilities else { return Ok(chosen) };
        let log_probability = (f64::from(logits[chosen.id as usize]) - log_sum_exp(logits)) as f32;
        let top = if n == 0 { Vec::new() } else { top_log_probabilities(logits, n) };
        Ok(Chosen { log_probability: Some(log_probability), top, ..chosen })
    }

    /// Takes a sequence's next token; whether it continues.
    pub(crate) fn take(&mut self, sequence: usize, chosen: Chosen) -> bool {
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

    /// What every sequence got; reports the ends that were not reported yet.
    pub(crate) fn finish(self) -> Vec<Generated> {
        for (sequence, out) in self.out.iter().enumerate().filter(|(sequence, _)| !self.done[*sequence]) {
            self.watch.ended(sequence, out.stop);
        }
        self.out
    }
}
