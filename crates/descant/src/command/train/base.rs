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
    let model = load::model(&settings.model.path, &device.device, room.arrangement.placement)?;
    use_memory(settings, device, &model, talk)?;
    if settings.model.preflight
        && let Some(read) = preflight::measure(&model, renderer)?
    {
        read.check()?;
        talk.item("base", read.words());
    }
    Ok(model)
}

/// Tells the model how much of its device it may use; says where that has no meaning.
fn use_memory(settings: &Settings, device: &load::Chosen, model: &GptOss, talk: Talk) -> Result<()> {
    let memory = &settings.memory;
    if descant_kernels::is_cpu(&device.device) && memory.keep != Memory::default().keep {
        talk.warn("memory.keep is about a card; the device is the CPU, where all that is needed is kept");
    }
    let (limit, keep) = memory.limit_and_keep()?;
    model.workspace().set(limit, keep);
    Ok(())
}
