//! The measurement of a run, before anything is kept of it: with the memory that its steps will have, on what its first step
//! will take.

use std::borrow::Cow;

use descant_lora::LoraAdapters;

use super::{Deviation, measure};
use crate::config::Experts;
use crate::error::Result;
use crate::feed::Feed;
use crate::run::{Course, Run};
use crate::sample::Sample;

/// How far the first step of a run with experts in fp8 is from one in bf16: of the first of its micro-batches that trains
/// something. `None` where none does, and for a run in bf16. It takes the memory of the run's steps and gives it back; each
/// of several processes measures the same.
///
/// # Errors
/// There are no samples, or there are no kernels for experts in fp8 for the model's device or weights; the device failed.
pub fn measure_first(course: Course<'_>, adapters: LoraAdapters) -> Result<Option<Deviation>> {
    let Course { model, config, samples, .. } = course;
    if config.experts == Experts::Bf16 {
        return Ok(None);
    }
    let run = Run::new(course, adapters)?;
    let (mut feed, mut position) = (Feed::new(samples, config)?, 0);
    let mut found = None;
    for _ in 0..config.accumulation {
        let batch: Vec<Cow<'_, Sample>> = feed.take(&mut position)?;
        let batch: Vec<&Sample> = batch.iter().map(|sample| &**sample).collect();
        found = measure(model, run.trainer.adapters(), &batch)?;
        if found.is_some() {
            break;
        }
    }
    drop(run);
    model.workspace().make_way(model.device())?;
    Ok(found)
}
