//! `descant data`: what a data set becomes, for people (`preview`) and for programs (`render`).

use std::path::PathBuf;

use anyhow::Result;

use crate::cli::{Data, DataCommand, Files};
use crate::failure::Exit;
use crate::hub::Places;
use crate::talk::Talk;

mod preview;
mod render;
mod renderer;
mod shown;
mod wrap;

/// Shows or prints. `model` finds the model directory of the arguments, if there is one; repositories are looked up in
/// `places`.
pub(crate) fn run(
    args: &Data,
    model: impl Fn(&Files) -> Result<Option<PathBuf>>,
    places: &Places,
    talk: Talk,
) -> Result<Exit> {
    let renderer = |files: &Files| renderer::renderer(files, model(files)?.as_deref());
    match &args.command {
        DataCommand::Preview(args) => {
            preview::run(args, &renderer(&args.files)?, &places.directory(&args.file)?, talk)
        }
        DataCommand::Render(args) => {
            render::run(args, &renderer(&args.files)?, &places.directory(&args.input)?, talk)
        }
    }
}
