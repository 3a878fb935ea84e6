//! Continuing prompts, many at once: what is checked before, and the ids that end a reply.
//!
//! How it is done is `engine.rs`'s.

use std::path::Path;

use serde::Deserialize;

use crate::batch::Batch;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::GptOss;
use crate::overlay::Overlay;
use crate::request::{GenerateOptions, Generated, Request, Watch};
use crate::run::Run;

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
    /// Continues each prompt; `watch` receives every token and every end, and may end sequences early. Where it ends
    /// all, the sequences that were not done have [`StopReason::Stopped`](crate::StopReason::Stopped) and what they got.
    ///
    /// There may be any number of prompts, of any lengths: as many as [`GenerateOptions::at_once`] and memory allow are at
    /// work, and one that is done makes room for the next. Greedy results do not depend on what else is asked, up to
    /// rounding; random numbers do not depend on it at all. Prompts with the overlay and without go together.
    ///
    /// # Errors
    /// A prompt is empty, holds an id outside the vocabulary or leaves no room for a reply in the model's context; a
    /// number of its sampling is out of range; memory does not hold the longest alone; logits are not finite; the device
    /// failed, or a limit of its memory was not kept.
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
        let wanted: Vec<usize> = (0..requests.len()).filter(|&i| requests[i].max_new_tokens > 0).collect();
        if !wanted.is_empty() {
            Engine::new(self, overlay, &wanted, &run)?.serve(&wanted, &mut run)?;
        }
        self.workspace().check_limit(self.device())?;
        Ok(run.finish())
    }

    pub(crate) fn check(&self, requests: &[Request]) -> Result<()> {
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
}
