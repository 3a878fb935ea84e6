//! The base model of a run: loaded within its limits, and seen to read like a trained one.

use anyhow::Result;
use descant_harmony::Renderer;
use descant_model::GptOss;

use crate::command::room::Room;
use crate::command::{load, preflight};
use crate::settings::{Memory, Settings};
use crate::talk::Talk;

/// The model, within its limits, once it was seen to read like a trained one.
pub(super) fn base(
    settings: &Settings,
    device: &load::Chosen,
    room: &Room,
    renderer: &Renderer,
    talk: Talk,
) -> Result<GptOss> {
    let memory = &settings.memory;
    if descant_kernels::is_cpu(&device.device) && memory.keep != Memory::default().keep {
        talk.warn("memory.keep is about a card; the device is the CPU, where all that is needed is kept");
    }
    let (path, placement) = (&settings.model.path, room.arrangement.placement);
    let model = load::model(path, &device.device, placement, memory.limit_and_keep()?)?;
    if settings.model.preflight
        && let Some(read) = preflight::measure(&model, renderer)?
    {
        read.check()?;
        talk.item("base", read.words());
    }
    Ok(model)
}
