//! The whole run of the optimizer: samples in their seeded order, step after step, reported as events, kept in
//! checkpoints.
//!
//! The position in the order is all that decides which samples a step takes. A checkpoint is made between steps
//! only, so there is never half a gradient to keep. A single step of a run is in `run.rs`.

use descant_lora::LoraAdapters;
use descant_model::GptOss;

use crate::checkpoint::{Checkpoint, Store};
use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::guard::GuardConfig;
use crate::memory::Arrangement;
use crate::run::{Course, Run};
use crate::sample::Sample;
use crate::validation::{Validation, Validator};

/// How a run is kept.
pub struct Keeping<'a> {
    /// Where.
    pub store: &'a Store,
    /// Steps from one checkpoint to the next; 0 for the last step alone. Being stopped makes one too.
    pub every: u64,
    /// Where to continue from; the start when absent.
    pub from: Option<Checkpoint>,
    /// Asked after every step whether to stop there.
    pub stop: &'a dyn Fn() -> bool,
    /// Examples whose loss is watched.
    pub validation: Option<Validation<'a>>,
}

/// How a run ended that did not fail.
#[derive(Debug)]
pub enum Ended {
    /// All steps are done.
    Done(LoraAdapters),
    /// It was asked to stop, and its state is in a checkpoint.
    Stopped {
        /// Steps done.
        step: u64,
    },
}

/// Trains to the last step, keeping nothing.
///
/// # Errors
/// There are no samples, or a step fails; see [`Trainer::step`](crate::Trainer::step).
pub fn fit(
    model: &GptOss,
    adapters: LoraAdapters,
    samples: &[Sample],
    config: &TrainConfig,
    observer: &mut dyn Observer,
) -> Result<LoraAdapters> {
    let guard = GuardConfig::default();
    let mut run = Run::new(
        Course {
            model,
            samples: &samples,
            config,
            guard: &guard,
            arrangement: Arrangement::default(),
            workers: None,
        },
        adapters,
    )?;
    observer.on(&Event::Phase { name: "train", total: Some(config.max_steps) });
    while run.trainer.steps() < config.max_steps {
        run.step(None, observer)?;
    }
    run.finish(observer);
    run.trainer.into_adapters()
}

/// Trains to the last step or until asked to stop, from the start or from a checkpoint.
///
/// # Errors
/// As [`fit`], and where a checkpoint cannot be made. The last checkpoint is untouched by any of them. Where a step could
/// not be computed (a card that others filled, data that is gone), what was done before it is saved first.
pub fn fit_kept(
    course: Course<'_>,
    adapters: LoraAdapters,
    keeping: Keeping<'_>,
    observer: &mut dyn Observer,
) -> Result<Ended> {
    let Keeping { store, every, from, stop, validation } = keeping;
    let mut run = Run::new(course, adapters)?;
    let (from, validation) = match course.workers {
        Some(workers) => {
            let from = workers.begin(run.trainer.adapters(), from)?;
            let validation = match validation {
                Some(what) => Some(Validation { past: workers.tell("validations", what.past)?, ..what }),
                None => None,
            };
            (from, validation)
        }
        None => (from, validation),
    };
    run.validator = validation.map(|what| Validator::new(what, run.longest.max(1))).transpose()?;
    if let Some(checkpoint) = from {
        run.trainer.restore(&checkpoint.trainer)?;
        run.progress = checkpoint.progress;
        run.saved = run.trainer.steps();
    }
    let max_steps = course.config.max_steps;
    observer.on(&Event::Phase { name: "train", total: Some(max_steps) });
    while run.trainer.steps() < max_steps && !run.is_over() {
        let before = (run.trainer.steps(), run.progress.position);
        if let Err(error) = run.step(Some(store), observer) {
            if !is_of_the_data(&error) {
                run.save_before(before, store, observer);
            }
            return Err(error);
        }
        let step = run.trainer.steps();
        let last = step == max_steps || run.is_over();
        // Everybody stops after the same step, whoever was asked to.
        let wish = course.workers.map_or_else(|| Ok(stop()), |workers| workers.any(stop()))?;
        let stopped = wish && !last;
        let saves = stopped || last || (every > 0 && step.is_multiple_of(every));
        run.compare(step, saves)?;
        if saves {
            run.save(store, observer)?;
        }
        if stopped {
            // Who ended before the step is saved would be missed.
            course.workers.map_or(Ok(()), |workers| workers.meet("saved"))?;
            return Ok(Ended::Stopped { step });
        }
    }
    run.finish(observer);
    Ok(Ended::Done(run.trainer.into_adapters()?))
}

/// Whether an error says something of data or settings, so that the next attempt fails at the same step.
fn is_of_the_data(error: &Error) -> bool {
    matches!(
        error,
        Error::NotFinite { .. }
            | Error::NothingTrained { .. }
            | Error::Sample { .. }
            | Error::ZeroGradient { .. }
    )
}
