//! A run of the optimizer between two steps: what a step takes, what is said of it, and what is kept of it.
//!
//! `fit.rs` decides how many there are, and when to save.

use std::borrow::Cow;
use std::time::Instant;

use burn::tensor::DType;
use descant_kernels::{Claim, Reservation, gauge};
use descant_lora::LoraAdapters;
use descant_model::GptOss;

use crate::checkpoint::{Progress, Store};
use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::event::{Event, Observer, StepMetrics, StepTiming};
use crate::feed::Feed;
use crate::guard::{GuardConfig, OnSpike};
use crate::incident;
use crate::memory::{Arrangement, Load};
use crate::sample::{Sample, Samples};
use crate::trainer::{StepResult, Trainer};
use crate::validation::{ValidationMetrics, Validator};
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

/// Steps at which the gradient is looked at site by site, at most.
const WATCHED: u64 = 60;

/// A run between two steps.
pub(crate) struct Run<'a> {
    course: Course<'a>,
    feed: Feed<'a>,
    pub(crate) trainer: Trainer<'a>,
    pub(crate) progress: Progress,
    /// Steps of the newest checkpoint.
    pub(crate) saved: u64,
    pub(crate) validator: Option<Validator<'a>>,
    /// Tokens of the longest micro-batch.
    pub(crate) longest: usize,
    /// The plan of the device's memory that was reported last.
    plan: Option<String>,
    /// For as long as the run: memory for its longest micro-batch from the first step on.
    _memory: Reservation,
}

impl<'a> Run<'a> {
    pub(crate) fn new(course: Course<'a>, adapters: LoraAdapters) -> Result<Self> {
        let seed = course.config.seed;
        let feed = Feed::new(course.samples, course.config)?;
        course.guard.validate().map_err(Error::Config)?;
        let workers = course.workers.map_or(1, |workers| workers.group.world());
        let load = Load::of_run(course.samples, course.config, workers)?;
        let longest = load.tokens as usize;
        let workspace = course.model.workspace();
        let memory = workspace.reserve(Claim { tokens: longest, ..Claim::default() });
        let stream = longest * course.model.config.hidden_size * DType::BF16.size();
        workspace.pages_for(course.model.device(), stream);
        let mut trainer =
            Trainer::new(course.model, adapters, course.config.clone())?.arranged(course.arrangement);
        if let Some(workers) = course.workers {
            trainer = trainer.shared(workers, load.copies);
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
    pub(crate) fn step(&mut self, store: Option<&Store>, observer: &mut dyn Observer) -> Result<()> {
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
    pub(crate) fn is_over(&self) -> bool {
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
            experts: self.course.config.experts,
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
    pub(crate) fn compare(&self, step: u64, saves: bool) -> Result<()> {
        let Some(workers) = self.course.workers else { return Ok(()) };
        if !saves && !step.is_multiple_of(COMPARED_EVERY) {
            return Ok(());
        }
        workers.compare(step, self.trainer.adapters(), &self.trainer.state()?)
    }

    /// Saves what was done before a step that failed, if it changed nothing and no checkpoint has that yet. A failure of
    /// this is a warning: the step's own is what ends the run, and the last checkpoint is still there.
    pub(crate) fn save_before(
        &mut self,
        (steps, position): (u64, u64),
        store: &Store,
        observer: &mut dyn Observer,
    ) {
        if self.trainer.steps() != steps || self.saved == steps {
            return;
        }
        self.progress.position = position;
        let model = self.course.model;
        // The look at a limit takes what a step left, so that under one all that is kept now is of the step that failed, and no
        // reason not to save. Without a limit it may be of the update before: then the save finds it, and nothing is saved.
        if model.workspace().settings().limit.is_some() {
            let _ = gauge::synchronize(model.device());
        }
        if let Err(error) = self.save(store, observer) {
            let text = format!("step {steps} could not be saved, the last checkpoint is older: {error}");
            observer.on(&Event::Warning(&text));
        }
    }

    pub(crate) fn save(&mut self, store: &Store, observer: &mut dyn Observer) -> Result<()> {
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

    pub(crate) fn finish(&self, observer: &mut dyn Observer) {
        for (site, experts) in self.trainer.unreached_experts() {
            let text = format!(
                "{site}: {experts} experts had no gradient; no token that bears on the loss reached them"
            );
            observer.on(&Event::Warning(&text));
        }
    }
}
