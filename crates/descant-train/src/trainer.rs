//! One optimizer step: forward, loss, backward, the guards, and the update.
//!
//! The loss of a step is the weighted mean over all its trained tokens, however they are spread over
//! micro-batches: each micro-batch contributes its sum divided by the whole step's weight. Nothing is updated
//! unless loss and gradient norm are numbers.

use std::collections::BTreeMap;

use burn::tensor::{Device, Gradients, Tensor};
use descant_kernels::{
    Claim, Reservation, accumulate, from_host, gauge, grad_norm, reached, read_all, read_floats, weighted_sum,
};
use descant_lora::LoraAdapters;
use descant_model::{GptOss, Site, gradient_of};

use crate::config::{Experts, TrainConfig};
use crate::error::{Error, Result};
use crate::memory::Arrangement;
use crate::objective::{CrossEntropy, Objective};
use crate::optimizer::AdamW;
use crate::sample::Sample;
use crate::schedule::learning_rate;
use crate::state::TrainerState;
use crate::work::{Losses, Told, Totals, Work};
use crate::workers::{Shared, Workers};

/// After this step a site without gradient is an error: A's gradient is zero while B is, and the first rate is 0.
pub const PROVEN_AFTER_STEP: u64 = 3;

/// Copies of the adapters that a step makes beside them: gradients, their sum over micro-batches, two moments.
const COPIES_OF_ADAPTERS: usize = 4;

/// The model, the adapter and the optimizer between steps.
#[derive(Debug)]
pub struct Trainer<'a> {
    model: &'a GptOss,
    config: TrainConfig,
    adapters: LoraAdapters,
    optimizer: AdamW,
    steps: u64,
    /// For each trainable tensor and matrix, whether a gradient was ever not zero; dropped once proven.
    alive: Option<Vec<Vec<bool>>>,
    unreached: BTreeMap<Site, usize>,
    /// Whether the next step also reads the norm of the gradient at each site.
    watched: bool,
    objective: Box<dyn Objective>,
    together: usize,
    /// What a step asks for beside the layers' own, for as long as the trainer lives.
    claims: Vec<Reservation>,
    /// Those who share the steps, where this process is not alone.
    workers: Option<Workers<'a>>,
    /// What the last step was to them.
    pub(crate) shared: Option<Shared>,
    /// Most seconds that a unit of [`cost`](crate::workers::cost) took the slowest of them, once there was a step.
    pub(crate) pace: Option<f64>,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq)]
pub struct StepResult {
    /// Optimizer step, from 1.
    pub step: u64,
    /// Weighted mean loss in nats over the trained tokens.
    pub loss: f32,
    /// Mean loss of the first analysis tokens, if the step had any.
    pub first_analysis_loss: Option<f32>,
    /// Rate of the update.
    pub learning_rate: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f32,
    /// The same at each site, A and B together, in the sites' order, where the step was [watched](Trainer::watch).
    pub site_norms: Option<Vec<f32>>,
    /// Tokens through the model.
    pub tokens: usize,
    /// Tokens that carried loss.
    pub trained_tokens: usize,
}

impl<'a> Trainer<'a> {
    /// A trainer at step 0. The adapters must lie on an autodiff device.
    ///
    /// # Errors
    /// A setting is out of range, or asks for numbers that no kernel of the device computes with.
    pub fn new(model: &'a GptOss, adapters: LoraAdapters, config: TrainConfig) -> Result<Self> {
        config.validate().map_err(Error::Config)?;
        let alive = adapters.tensors().map(|t| vec![false; t.dims()[0]]).collect();
        let optimizer = AdamW::new(&config, &adapters);
        let bytes = adapters.n_parameters() * size_of::<f32>();
        let bytes = (COPIES_OF_ADAPTERS * bytes) as u64;
        let experts = config.experts.form();
        experts_in_bf16(model, config.experts)?;
        let memory = model.workspace().reserve(Claim { bytes, together: 1, experts, ..Claim::default() });
        Ok(Self {
            model,
            config,
            adapters,
            optimizer,
            steps: 0,
            alive: Some(alive),
            unreached: BTreeMap::new(),
            watched: false,
            objective: Box::new(CrossEntropy),
            together: 1,
            claims: vec![memory],
            workers: None,
            shared: None,
            pace: None,
        })
    }

    /// The same trainer towards another objective than cross-entropy.
    #[must_use]
    pub fn towards(self, objective: Box<dyn Objective>) -> Self {
        Self { objective, ..self }
    }

    /// The same trainer, whose work is laid out so; where the weights lie is the model's. With several micro-batches
    /// going through a layer before the next one, a layer that streams crosses the bus once each way for all of them;
    /// the inputs of all layers of all of them are kept, and nothing else. Changes no bit of a result.
    #[must_use]
    pub fn arranged(mut self, arrangement: Arrangement) -> Self {
        self.together = arrangement.together.max(1);
        let claim = Claim { together: self.together, ..arrangement.claim() };
        self.claims.push(self.model.workspace().reserve(claim));
        self
    }

    /// The same trainer, whose steps are shared with other processes: each computes some of the micro-batches, and their
    /// gradients are added in the order in which one process adds them. All give the same micro-batches to each step,
    /// and all end with the same state. Changes no bit of a result.
    ///
    /// `copies` of the adapters' gradients are kept meanwhile ([`Load::copies`](crate::memory::Load::copies)): memory is
    /// left free for them.
    #[must_use]
    pub fn shared(mut self, workers: Workers<'a>, copies: u64) -> Self {
        let bytes = copies * (self.adapters.n_parameters() * size_of::<f32>()) as u64;
        self.claims.push(self.model.workspace().reserve(Claim { bytes, ..Claim::default() }));
        self.workers = Some(workers);
        self
    }

    /// What the last step was to the processes that shared it.
    pub fn last_shared(&self) -> Option<Shared> {
        self.shared
    }

    /// The frozen base.
    pub(crate) fn model(&self) -> &'a GptOss {
        self.model
    }

    /// The adapters as they are now.
    pub fn adapters(&self) -> &LoraAdapters {
        &self.adapters
    }

    /// Where it computes.
    pub(crate) fn device(&self) -> &Device {
        self.model.device()
    }

    /// The adapters, at the end.
    ///
    /// # Errors
    /// The device failed in the last update, which is known only here: then they are not to be kept.
    pub fn into_adapters(self) -> Result<LoraAdapters> {
        gauge::synchronize(self.model.device())?;
        Ok(self.adapters)
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Experts at each site that had no gradient by step [`PROVEN_AFTER_STEP`], because no token that bears on the
    /// loss had gone to them.
    pub fn unreached_experts(&self) -> &BTreeMap<Site, usize> {
        &self.unreached
    }

    /// Whether steps from here on also read the norm of the gradient at each site. Changes no result.
    pub fn watch(&mut self, watched: bool) {
        self.watched = watched;
    }

    /// Counts a step that was not made, so that schedule and data advance.
    pub fn pass_over(&mut self) {
        self.steps += 1;
    }

    /// Everything that a step changes.
    ///
    /// # Errors
    /// The device failed in the last update, which is reported only here: then this must not be kept.
    pub fn state(&self) -> Result<TrainerState> {
        let adapters = self.adapters.tensors().map(|tensor| Ok(read_floats(tensor.clone())?));
        let unreached = self.unreached.iter().map(|(site, n)| (*site, *n)).collect();
        Ok(TrainerState {
            steps: self.steps,
            updates: self.optimizer.updates(),
            adapters: adapters.collect::<Result<_>>()?,
            moments: self.optimizer.moments()?,
            alive: self.alive.clone(),
            unreached,
        })
    }

    /// Goes back to a state, to the bit. The trainer is that of the same adapters and the same optimizer.
    ///
    /// # Errors
    /// The state is of others; then nothing was changed.
    pub fn restore(&mut self, state: &TrainerState) -> Result<()> {
        state.check(&self.adapters).map_err(Error::State)?;
        state.check_format(self.optimizer.format()).map_err(Error::State)?;
        self.adapters.update(|index, old| {
            let plain = from_host(state.adapters[index].clone(), old.dims(), &old.device());
            Tensor::from_inner(plain).require_grad()
        });
        self.optimizer.restore(self.model.device(), &self.adapters, &state.moments, state.updates);
        self.steps = state.steps;
        self.alive.clone_from(&state.alive);
        self.unreached = state.unreached.iter().copied().collect();
        Ok(())
    }

    /// One optimizer step on these micro-batches.
    ///
    /// # Errors
    /// A sample is malformed or nothing is trained; loss or gradient is non-finite; a site gets no gradient; the device
    /// failed. In every case the adapter is as before.
    pub fn step(&mut self, micro_batches: &[Vec<&Sample>]) -> Result<StepResult> {
        self.step_if(micro_batches, |_, _| true)
    }

    /// As [`step`](Self::step), but the update is made only if `allow`, which is given loss and gradient norm, both
    /// finite, says so. The step counts either way.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn step_if(
        &mut self,
        micro_batches: &[Vec<&Sample>],
        allow: impl FnOnce(f32, f32) -> bool,
    ) -> Result<StepResult> {
        let step = self.steps + 1;
        let samples = || micro_batches.iter().flatten();
        samples().try_for_each(|sample| sample.check())?;
        let weight: f64 = samples().flat_map(|s| s.targets()).map(|t| f64::from(t.weight)).sum();
        if weight == 0.0 {
            return Err(Error::NothingTrained { step, samples: samples().count() });
        }
        let work: Vec<Work> = micro_batches
            .iter()
            .map(|samples| Work::new(samples, weight, self.model.config.vocab_size))
            .collect::<Result<_>>()?;
        let tokens = work.iter().map(|work| work.batch.ids().len()).sum();
        let trained: Vec<Work> = work.into_iter().filter(|work| !work.rows.is_empty()).collect();
        let (gradients, told) = match self.workers {
            Some(workers) => self.compute_shared(workers, &trained)?,
            None => self.compute(&trained)?,
        };
        // The host does its part of the update while the device computes, and waits for the device once.
        let norm = grad_norm(&gradients);
        let rate = learning_rate(&self.config, self.steps);
        let update = self.optimizer.prepare(&self.config, rate, &norm, &self.adapters, &gradients);
        let (losses, grad_norm) = told.read(norm)?;
        let totals = Totals::new(tokens, &trained, &losses);
        let loss = (totals.loss / weight) as f32;
        for (what, value) in [("the loss", loss), ("the gradient norm", grad_norm)] {
            if !value.is_finite() {
                let rows = samples().map(|s| s.row).collect();
                return Err(Error::NotFinite { step, what, value, rows });
            }
        }
        self.prove_gradients(step, &gradients)?;
        let site_norms = self.watched.then(|| site_norms(&gradients)).transpose()?;
        if allow(loss, grad_norm) {
            self.optimizer.apply(update, &mut self.adapters);
        }
        self.steps = step;
        Ok(StepResult {
            step,
            loss,
            first_analysis_loss: totals.first_analysis.mean(),
            learning_rate: rate,
            grad_norm,
            site_norms,
            tokens: totals.tokens,
            trained_tokens: totals.trained_tokens,
        })
    }

    /// The sum of the gradients of micro-batches, and the losses of each.
    fn compute(&self, works: &[Work]) -> Result<(Vec<Tensor<3>>, Told)> {
        let works: Vec<&Work> = works.iter().collect();
        let (mut gradients, mut losses) = (None, Losses::new());
        for group in works.chunks(self.together) {
            match group {
                [work] if !self.model.sweeps() => {
                    let new = self.gradients_of(work, &mut losses);
                    gradients = Some(added(gradients, new));
                }
                _ => self.accumulate_together(group, &mut gradients, &mut losses)?,
            }
        }
        let gradients = gradients.expect("weight is not zero, so some micro-batch was trained");
        Ok((gradients, Told::Underway(losses)))
    }

    /// The gradients of each of these micro-batches by itself, and their losses on their way.
    pub(crate) fn compute_each(&self, works: &[&Work]) -> Result<(Vec<Vec<Tensor<3>>>, Losses)> {
        let (mut each, mut losses) = (Vec::new(), Losses::new());
        for group in works.chunks(self.together) {
            match group {
                [work] if !self.model.sweeps() => each.push(self.gradients_of(work, &mut losses)),
                _ => each.extend(self.each_together(group, &mut losses)?),
            }
        }
        Ok((each, losses))
    }

    /// The gradients of a micro-batch.
    fn gradients_of(&self, work: &Work, losses: &mut Losses) -> Vec<Tensor<3>> {
        let hidden = self.model.hidden(&work.batch, &self.adapters);
        let mut grads = self.losses_back(hidden, work, losses);
        self.adapters.tensors().map(|tensor| gradient_of(tensor, &mut grads)).collect()
    }

    /// The gradients of a micro-batch's share of the loss.
    pub(crate) fn losses_back(&self, hidden: Tensor<2>, work: &Work, told: &mut Losses) -> Gradients {
        let losses = self.objective.token_losses(self.model, hidden, &work.rows, &work.ids);
        let shares = from_host(work.shares.clone(), [work.shares.len()], self.model.device());
        told.push(losses.clone().inner());
        weighted_sum(losses, shares).backward()
    }

    /// Until [`PROVEN_AFTER_STEP`], looks for tensors that get no gradient.
    fn prove_gradients(&mut self, step: u64, gradients: &[Tensor<3>]) -> Result<()> {
        let Some(alive) = &mut self.alive else { return Ok(()) };
        // All of them at once: to wait for the device for each took longer than a short step.
        let flags = read_floats(reached(gradients))?;
        alive.iter_mut().flatten().zip(flags).for_each(|(alive, flag)| *alive |= flag > 0.0);
        // A step that was left out proves nothing.
        if u64::from(self.optimizer.updates()) + 1 < PROVEN_AFTER_STEP {
            return Ok(());
        }
        for (index, site) in self.adapters.pairs().keys().enumerate() {
            let mut unreached = 0;
            for (tensor, alive) in ["A", "B"].into_iter().zip(&alive[2 * index..]) {
                let dead = alive.iter().filter(|alive| !**alive).count();
                if dead == alive.len() {
                    return Err(Error::ZeroGradient { site: *site, tensor, step });
                }
                unreached = unreached.max(dead);
            }
            if unreached > 0 {
                self.unreached.insert(*site, unreached);
            }
        }
        self.alive = None;
        Ok(())
    }
}

/// The products with experts that stay in bf16 although a training's steps are to multiply with experts in fp8, which does
/// not hold the weights of all matrices exactly. Prepares the model for such steps, once.
///
/// # Errors
/// There are no such kernels for the model's device or weights.
pub fn experts_in_bf16(model: &GptOss, experts: Experts) -> Result<Vec<Site>> {
    if experts == Experts::Bf16 {
        return Ok(Vec::new());
    }
    let refused =
        || Error::Config("train.experts is \"fp8\", and this device has no such kernels".to_owned());
    model.prepare_experts(experts.form())?.ok_or_else(refused)
}

/// A sum and what comes next.
fn added(sum: Option<Vec<Tensor<3>>>, new: Vec<Tensor<3>>) -> Vec<Tensor<3>> {
    match sum {
        None => new,
        Some(old) => accumulate(old, &new),
    }
}

/// Norm of each pair of gradients. One read for all of them.
fn site_norms(gradients: &[Tensor<3>]) -> Result<Vec<f32>> {
    let norms = read_all(gradients.chunks_exact(2).map(grad_norm).collect())?;
    Ok(norms.into_iter().flatten().collect())
}
