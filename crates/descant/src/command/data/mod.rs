//! `descant data`: what a data set becomes, for people (`preview`) and for programs (`render`).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use descant_harmony::Renderer;

use crate::cli::{Data, DataCommand, Files};
use crate::failure::{Exit, Hinted};
use crate::hub::Places;
use crate::talk::Talk;

mod preview;
mod render;
mod shown;
mod wrap;

/// Shows or prints. `model` finds the model directory of the arguments; repositories are looked up in `places`.
pub(crate) fn run(
    args: &Data,
    model: impl Fn(&Files) -> Result<PathBuf>,
    places: &Places,
    talk: Talk,
) -> Result<Exit> {
    match &args.command {
        DataCommand::Preview(args) => {
            preview::run(args, &model(&args.files)?, &places.directory(&args.file)?, talk)
        }
        DataCommand::Render(args) => {
            render::run(args, &model(&args.files)?, &places.directory(&args.input)?, talk)
        }
    }
}

/// Tokenizer and template of the arguments.
fn renderer(files: &Files, model: &Path) -> Result<Renderer> {
    if !model.join("tokenizer.json").is_file() {
        let error = anyhow!("{} has no tokenizer.json", model.display());
        let hint = "give a model directory, or make one with `descant tokenizer build --out DIR`";
        return Err(Hinted::new(error, hint).into());
    }
    Renderer::load(model, files.chat_template.as_deref())
        .with_context(|| format!("model {}", model.display()))
}
