//! The whole run of the optimizer: samples in their seeded order, step after step, reported as events, kept in
//! checkpoints.
//!
//! The position in the order is all that decides which samples a step takes. A checkpoint is made between steps
//! only, so there is never half a gradient to keep.

use std::borrow::Cow;
use std::time::Instant;

use descant_kernels::{Claim, Reservation};
use descant_lora::LoraAdapters;
use descant_model::GptOss;

use crate::checkpoint::{Checkpoint, Progress, Store};
use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::event::{Event, Observer, StepMetrics, StepTiming};
use crate::feed::Feed;
use crate::guard::{GuardConfig, OnSpike};
use crate::incident;
use crate::memory::{Arrangement, Load};
use crate::sample::{Sample, Samples};
use crate::trainer::{StepResult, Trainer};
use crate::validation::{Validation, ValidationMetrics, Validator};
use crate::workers::{COMPARED_EVERY, Workers};

/// What is trained on what, and how.
#[derive(Debug, Clone, Copy)]
pub struct Course<'a> {
    /// The frozen base.
    pub model: &'a GptOss,
    /// Training data.
    pub samples: &'a dyn Samples,
    /// Loop and optimizer.
    pub config: &'a TrainConfig,
    /// Guards.
    pub guard: &'a GuardConfig,
    /// How the work is laid out; see [`Trainer::arranged`].
    pub arrangement: Arrangement,
    /// The processes that share the steps; see [`Trainer::shared`]. All of them run this course; rank 0 keeps its
    /// checkpoints and tells the others where to continue.
    pub workers: Option<Workers<'a>>,
}

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

/// Steps at which the gradient is looked at site by site, at most.
const WATCHED: u64 = 60;

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
/// There are no samples, or a step fails; see [`Trainer::step`].
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

/// A run between two steps.
struct Run<'a> {
    course: Course<'a>,
    feed: Feed<'a>,
    trainer: Trainer<'a>,
    progress: Progress,
    /// Steps of the newest checkpoint.
    saved: u64,
    validator: Option<Validator<'a>>,
    /// Tokens of the longest micro-batch.
    longest: usize,
    /// The plan of the device's memory that was reported last.
    plan: Option<String>,
    /// For as long as the run: memory for its longest micro-batch from the first step on.
    _memory: Reservation,
}

impl<'a> Run<'a> {
    fn new(course: Course<'a>, adapters: LoraAdapters) -> Result<Self> {
        let seed = course.config.seed;
        let feed = Feed::new(course.samples, course.config)?;
        course.guard.validate().map_err(Error::Config)?;
        let longest = Load::of_run(course.samples, course.config)?.tokens as usize;
        let memory = course.model.workspace().reserve(Claim { tokens: longest, ..Claim::default() });
        let mut trainer =
            Trainer::new(course.model, adapters, course.config.clone())?.arranged(course.arrangement);
        if let Some(workers) = course.workers {
            trainer = trainer.shared(workers);
        }
        let progress = Progress { seed, ..Progress::default() };
        Ok(Self {
            course,
            feed,
            trainer,
            progress,
            saved: 0,
            validator: None,
            longest,
            plan: None,
            _memory: memory,
        })
    }

    /// One step, or one that is passed over.
    fn step(&mut self, store: Option<&Store>, observer: &mut dyn Observer) -> Result<()> {
        let start = Instant::now();
        let Course { config, guard, .. } = self.course;
        let position = &mut self.progress.position;
        let read: Vec<Vec<Cow<'_, Sample>>> =
            (0..config.accumulation).map(|_| self.feed.take(position)).collect::<Result<_>>()?;
        let batches: Vec<Vec<&Sample>> =
            read.iter().map(|batch| batch.iter().map(|sample| &**sample).collect()).collect();
        let window = &self.progress.window;
        let mut spike = None;
        let step = self.trainer.steps() + 1;
        let every = config.max_steps.div_ceil(WATCHED).max(1);
        self.trainer.watch(step == 1 || step == config.max_steps || step.is_multiple_of(every));
        let result = self.trainer.step_if(&batches, |loss, norm| {
            spike = window.spike(loss, norm, guard.spike_z);
            spike.is_none() || guard.on_spike == OnSpike::Warn
        });
        let result = match result {
            Ok(result) => result,
            Err(Error::NotFinite { step, what, value, rows }) => {
                self.incident(store, &batches, (step, what, value), observer)?;
                // It takes rank 0 a while, and the others would end before it.
                self.course.workers.map_or(Ok(()), |workers| workers.meet("incident"))?;
                if self.progress.non_finite >= guard.skip_non_finite {
                    return Err(Error::NotFinite { step, what, value, rows });
                }
                self.progress.non_finite += 1;
                self.progress.skipped += 1;
                self.trainer.pass_over();
                observer
                    .on(&Event::Warning(&format!("step {step}: {what} is {value}; the step was left out")));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if let Some(spike) = spike {
            let left_out = guard.on_spike == OnSpike::Skip;
            self.progress.skipped += u64::from(left_out);
            let done = if left_out { "; the update was left out" } else { "" };
            observer.on(&Event::Warning(&format!("step {}: {spike}{done}", result.step)));
        }
        let plan = self.course.model.workspace().words();
        if plan != self.plan {
            observer.on(&Event::Note { label: "memory", text: plan.as_deref().unwrap_or_default() });
            self.plan = plan;
        }
        self.course.model.workspace().check_limit(self.course.model.device())?;
        self.progress.window.push(result.loss, result.grad_norm);
        let samples = batches.iter().map(Vec::len).sum();
        let seconds = start.elapsed().as_secs_f64();
        let validation = self.validate(result.step, observer)?;
        self.tell(&result, samples, seconds, validation, observer);
        Ok(())
    }

    /// Whether the loss that is watched says that there is nothing left to gain.
    fn is_over(&self) -> bool {
        self.validator.as_ref().is_some_and(Validator::is_over)
    }

    /// Looks at the examples that are watched, where the step is one to do so after.
    fn validate(&mut self, step: u64, observer: &mut dyn Observer) -> Result<Option<ValidationMetrics>> {
        let last = self.course.config.max_steps;
        let Some(validator) = self.validator.as_mut().filter(|v| v.is_due(step, last)) else {
            return Ok(None);
        };
        let Course { model, workers, .. } = self.course;
        let metrics = validator.look(step, model, self.trainer.adapters(), workers)?;
        let channels: Vec<String> =
            metrics.channels.iter().map(|(name, channel)| format!("{name} {:.4}", channel.loss)).collect();
        let best = match validator.best() {
            Some((at, _)) if at == step => "the least so far".to_owned(),
            Some((at, loss)) => format!("{loss:.4} at step {at} is the least"),
            None => "none was a number so far".to_owned(),
        };
        let text = format!("step {step}: loss {:.4} ({}), {best}", metrics.loss, channels.join(", "));
        observer.on(&Event::Note { label: "validation", text: &text });
        if validator.is_over() && step < last {
            let text = format!("the run ends at step {step}: the validation loss falls no longer");
            observer.on(&Event::Warning(&text));
        }
        Ok(Some(metrics))
    }

    fn tell(
        &self,
        result: &StepResult,
        samples: usize,
        seconds: f64,
        validation: Option<ValidationMetrics>,
        observer: &mut dyn Observer,
    ) {
        if let Some(norms) = &result.site_norms {
            let sites = self.trainer.adapters().pairs().keys();
            let norms: Vec<(String, f32)> =
                sites.map(ToString::to_string).zip(norms.iter().copied()).collect();
            observer.on(&Event::Gradients { step: result.step, norms: &norms });
        }
        let metrics = StepMetrics {
            step: result.step,
            loss: result.loss,
            loss_bits: result.loss.to_bits(),
            first_analysis_loss: result.first_analysis_loss,
            learning_rate: result.learning_rate,
            grad_norm: result.grad_norm,
            samples,
            tokens: result.tokens,
            trained_tokens: result.trained_tokens,
            epoch: self.progress.position as f64 / self.feed.epoch() as f64,
            skipped: self.progress.skipped,
            validation,
        };
        let tokens_per_second = result.tokens as f64 / seconds;
        let shared = self.trainer.last_shared();
        let timing = StepTiming { step: result.step, seconds, tokens_per_second, shared };
        observer.on(&Event::Step { metrics: &metrics, timing, total: self.course.config.max_steps });
    }

    /// Writes down what can be found out about a step that has no finite loss or gradient.
    fn incident(
        &self,
        store: Option<&Store>,
        batches: &[Vec<&Sample>],
        failure: (u64, &str, f32),
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let Some(store) = store.filter(|_| self.is_first()) else { return Ok(()) };
        let samples: Vec<&Sample> = batches.iter().flatten().copied().collect();
        let losses = &self.progress.window.losses;
        let incident = incident::look(self.course.model, self.trainer.adapters(), &samples, failure, losses)?;
        let path = store.run.join(format!("incident-{:06}.json", failure.0));
        let mut bytes = serde_json::to_vec_pretty(&incident).expect("texts and numbers are JSON");
        bytes.push(b'\n');
        descant_files::write_atomic(&path, &bytes)?;
        observer.on(&Event::Warning(&format!("step {}: see {}", failure.0, path.display())));
        Ok(())
    }

    /// Whether this process keeps what is kept.
    fn is_first(&self) -> bool {
        self.course.workers.is_none_or(|workers| workers.is_first())
    }

    /// Sees that all processes have the same tensors, where it is time to.
    fn compare(&self, step: u64, saves: bool) -> Result<()> {
        let Some(workers) = self.course.workers else { return Ok(()) };
        if !saves && !step.is_multiple_of(COMPARED_EVERY) {
            return Ok(());
        }
        workers.compare(step, self.trainer.adapters(), &self.trainer.state()?)
    }

    /// Saves what was done before a step that failed, if it changed nothing and no checkpoint has that yet. A failure of
    /// this is a warning: the step's own is what ends the run, and the last checkpoint is still there.
    fn save_before(&mut self, (steps, position): (u64, u64), store: &Store, observer: &mut dyn Observer) {
        if self.trainer.steps() != steps || self.saved == steps {
            return;
        }
        self.progress.position = position;
        if let Err(error) = self.save(store, observer) {
            let text = format!("step {steps} could not be saved, the last checkpoint is older: {error}");
            observer.on(&Event::Warning(&text));
        }
    }

    fn save(&mut self, store: &Store, observer: &mut dyn Observer) -> Result<()> {
        if !self.is_first() {
            return Ok(());
        }
        let logs = observer.logs()?;
        let mut told = |text: &str| observer.on(&Event::Warning(text));
        store.save(self.trainer.adapters(), &self.trainer.state()?, &self.progress, logs, &mut told)?;
        self.saved = self.trainer.steps();
        observer.on(&Event::Note { label: "saved", text: &format!("step {}", self.saved) });
        Ok(())
    }

    fn finish(&self, observer: &mut dyn Observer) {
        for (site, experts) in self.trainer.unreached_experts() {
            let text = format!(
                "{site}: {experts} experts had no gradient; no token that bears on the loss reached them"
            );
            observer.on(&Event::Warning(&text));
        }
    }
}
