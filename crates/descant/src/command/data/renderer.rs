//! Tokenizer and template of `descant data`.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use descant_harmony::{ChatTemplate, Renderer, Tokenizer};

use crate::cli::Files;
use crate::failure::Hinted;

/// Tokenizer and template of a model directory; without one those that are published with gpt-oss, which are built in.
pub(super) fn renderer(files: &Files, model: Option<&Path>) -> Result<Renderer> {
    let template = files.chat_template.as_deref();
    let Some(model) = model else {
        let tokenizer = Tokenizer::gpt_oss()?;
        let template = template.map_or_else(ChatTemplate::official, ChatTemplate::from_file)?;
        return Ok(Renderer::new(tokenizer, template));
    };
    if !model.join("tokenizer.json").is_file() {
        let error = anyhow!("{} has no tokenizer.json", model.display());
        let hint = "give a model directory, or leave --model out: the tokenizer of gpt-oss is built in";
        return Err(Hinted::new(error, hint).into());
    }
    Renderer::load(model, template).with_context(|| format!("model {}", model.display()))
}
