//! What the loop is given: what is trained on what, and how validation examples are looked at.

use descant_lora::LoraAdapters;
use descant_model::GptOss;
use descant_train::{Course, Validation, Watched, Workers};

use crate::command::room::Room;
use crate::settings::{Settings, Validate};

/// What is trained on what, as far as there is room.
pub(super) fn course<'a>(
    model: &'a GptOss,
    samples: &'a dyn descant_train::Samples,
    settings: &'a Settings,
    room: &'a Room,
    workers: Option<Workers<'a>>,
) -> Course<'a> {
    let Room { train, arrangement, .. } = room;
    Course { model, samples, config: train, guard: &settings.guard, arrangement: *arrangement, workers }
}

/// How the examples that are not trained on are looked at, where there are any.
pub(super) fn validation<'a>(
    settings: &Settings,
    watched: &'a [Watched],
    past: Vec<(u64, f32)>,
    best: &'a dyn Fn(u64, &LoraAdapters) -> descant_train::Result<()>,
) -> Option<Validation<'a>> {
    let Validate { every, patience, .. } = settings.validate;
    (!watched.is_empty()).then_some(Validation { watched, every, patience, past, best })
}
