//! Tokenizer and template of `descant data`.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use descant_harmony::Renderer;

use crate::cli::Files;
use crate::failure::Hinted;

/// Tokenizer and template of the arguments.
pub(super) fn renderer(files: &Files, model: &Path) -> Result<Renderer> {
    if !model.join("tokenizer.json").is_file() {
        let error = anyhow!("{} has no tokenizer.json", model.display());
        let hint = "give a model directory, or make one with `descant tokenizer build --out DIR`";
        return Err(Hinted::new(error, hint).into());
    }
    Renderer::load(model, files.chat_template.as_deref())
        .with_context(|| format!("model {}", model.display()))
}
