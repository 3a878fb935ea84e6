//! `descant export --prove`: the export, read back by our own reader, beside base and adapter on rows of text.
//!
//! One model is in memory at a time, within the limit that was set: what does not fit a card lies on the host. What base
//! and adapter say of every token is kept meanwhile, so that as many rows are compared as that takes memory for.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use burn::tensor::{DType, Tensor, TensorData};
use descant_export::{Form, Job, Proof, Report, read_gguf_lora, unpack_gguf};
use descant_kernels::{Keep, read_floats};
use descant_lora::LoraAdapters;
use descant_model::{Bare, Batch, GptOss, Overlay};
use descant_train::memory::Asking;
use descant_train::{Event, Observer as _, Sample, score};

use super::room::place_for_asking;
use super::{load, rows};
use crate::observe::Progress;
use crate::settings::Settings;
use crate::talk::Talk;

/// Bytes that are kept of what base and adapter say.
const KEPT_BYTES: usize = 1 << 30;
/// Positions whose distributions are read at once.
const AT_ONCE: usize = 64;
/// Largest mean divergence of a form that loses nothing, in nats.
const MOST_KL: f64 = 1e-3;
/// Smallest share of the gained loss that is kept.
const LEAST_GAIN: f64 = 0.95;

/// Where it is proved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The device, as it was asked for.
    pub(crate) device: &'a str,
    /// Most bytes in use there.
    pub(crate) limit: Option<u64>,
}

/// What models are loaded for, one after the other.
struct Room {
    device: load::Chosen,
    limit: Option<u64>,
    /// Tokens of the longest row.
    longest: usize,
}

impl Room {
    /// A model within the limit.
    fn load(&self, dir: &Path) -> Result<GptOss> {
        let longest = self.longest as u64;
        let asking = Asking { batch: 1, tokens: longest, scored: longest };
        let (placement, _) = place_for_asking(&self.device, self.limit, &load::config(dir)?, asking, 1)?;
        load::model(dir, &self.device.device, placement, (self.limit, Keep::Auto))
    }

    /// Ends a model, so that there is room for the next one.
    fn end(&self, model: GptOss) -> Result<()> {
        let workspace = model.workspace().clone();
        drop(model);
        Ok(workspace.make_way(&self.device.device)?)
    }
}

/// Compares what was written with what it was made of; `None` where it was stopped.
pub(crate) fn prove(
    job: &Job<'_>,
    report: &Report,
    path: &Path,
    mut settings: Settings,
    place: Place<'_>,
    stopped: &dyn Fn() -> ControlFlow<()>,
    talk: Talk,
) -> Result<Option<Proof>> {
    job.model.clone_into(&mut settings.model.path);
    settings.model.chat_template = settings.model.chat_template.filter(|path| path.is_file());
    let device = load::said_device(place.device, talk)?;
    let renderer = load::renderer(&settings)?;
    let (mut samples, _) = rows::samples(&settings, path, &renderer)?;
    let mut progress = Progress::new(talk);

    let vocabulary = load::config(job.model)?.vocab_size;
    let most = KEPT_BYTES / (size_of::<f32>() * vocabulary);
    let mut tokens = 0;
    samples.retain(|sample| {
        tokens += counted(sample).count();
        tokens <= most
    });
    if samples.is_empty() {
        return Err(anyhow!(
            "{}: no row that can be compared: none has a trained token, or each is too long",
            path.display()
        ));
    }
    let longest = samples.iter().map(|sample| sample.ids.len()).max().unwrap_or(0);
    let room = Room { device, limit: place.limit, longest };
    let base = room.load(job.model)?;
    // Whoever wrote it, as the export reads it.
    let sites = descant_lora::read(job.adapter, &base.config)?.sites;
    let adapter = LoraAdapters::from_sites(sites, &base.config, base.device());
    progress.on(&Event::Phase { name: "prove", total: Some(2 * samples.len() as u64) });
    let loss_base = loss(&base, &Bare, &samples)?;
    let loss_adapter = loss(&base, &adapter, &samples)?;
    let mut kept = Vec::with_capacity(samples.len());
    for sample in &samples {
        if stopped().is_break() {
            progress.finish();
            return Ok(None);
        }
        kept.push(distributions(&base, &adapter, sample)?);
        progress.on(&Event::Progress { done: kept.len() as u64 });
    }
    drop(adapter);

    let (export, overlay, _folder) = read_back(job, base, &room)?;
    let loss_export = loss(&export, &*overlay, &samples)?;
    let (mut kl, mut same, mut n) = (0.0, 0_usize, 0_usize);
    for (i, (sample, kept)) in samples.iter().zip(&kept).enumerate() {
        if stopped().is_break() {
            progress.finish();
            return Ok(None);
        }
        let found = distributions(&export, &*overlay, sample)?;
        for (p, q) in kept.chunks_exact(vocabulary).zip(found.chunks_exact(vocabulary)) {
            kl += divergence(p, q);
            same += usize::from(likeliest(p) == likeliest(q));
            n += 1;
        }
        progress.on(&Event::Progress { done: (samples.len() + i + 1) as u64 });
    }
    progress.finish();
    let kl = kl / n as f64;
    let gained = loss_base - loss_adapter;
    let gain_kept = (gained > 0.0).then(|| (loss_base - loss_export) / gained);
    let reason = reason(is_lossless(report), kl, gain_kept);
    Ok(Some(Proof {
        // Its folder is this machine's business.
        rows_of: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        rows: samples.len(),
        tokens: n,
        kl,
        top1: same as f64 / n as f64,
        loss_base,
        loss_adapter,
        loss_export,
        gain_kept,
        passed: reason.is_none(),
        reason,
    }))
}

/// Whether nothing but a rounding of what changed is lost: no expert's update was packed.
fn is_lossless(report: &Report) -> bool {
    report.experts_survival.is_none() && report.weights.iter().all(|row| row.repacked_error.is_none())
}

/// Why the export is not good enough, if it is not.
fn reason(lossless: bool, kl: f64, gain_kept: Option<f64>) -> Option<String> {
    if !kl.is_finite() {
        return Some("the export computes something that is not a number".to_owned());
    }
    if lossless && kl > MOST_KL {
        return Some(format!(
            "it diverges by {kl:.2e} nats a token; a form that loses nothing may by {MOST_KL:.0e}"
        ));
    }
    let kept = gain_kept.filter(|kept| *kept < LEAST_GAIN)?;
    Some(format!("only {:.1} % of the loss that the adapter gains is kept; expected 95 %", 100.0 * kept))
}

/// The export as a model and what lies over it, and the folder that it was unpacked to.
fn read_back(
    job: &Job<'_>,
    base: GptOss,
    room: &Room,
) -> Result<(GptOss, Box<dyn Overlay>, Option<descant_files::NewDir>)> {
    let out = job.out;
    let file = || if out.is_dir() { out.join("adapter.gguf") } else { out.to_owned() };
    Ok(match job.form {
        Form::Peft | Form::PeftFolded | Form::MlxAdapter => {
            let overlay = LoraAdapters::load_peft(out, &base.config, base.device())?;
            (base, Box::new(overlay), None)
        }
        Form::GgufLora => {
            let sites = read_gguf_lora(&file(), &base.config)?;
            let overlay = LoraAdapters::from_sites(sites, &base.config, base.device());
            (base, Box::new(overlay), None)
        }
        Form::Bf16 | Form::Mxfp4 => {
            room.end(base)?;
            (room.load(out)?, Box::new(Bare), None)
        }
        Form::Gguf => {
            let config = base.config.clone();
            room.end(base)?;
            let path = if out.is_dir() { out.join("model.gguf") } else { out.to_owned() };
            let text =
                descant_files::read_bounded(&job.model.join("config.json"), descant_model::MAX_CONFIG_BYTES)?;
            let text = serde_json::from_slice(&text).context("config.json")?;
            let folder = unpack_gguf(&path, &config, &text)?;
            (room.load(folder.temporary())?, Box::new(Bare), Some(folder))
        }
    })
}

/// Positions whose next token counts.
fn counted(sample: &Sample) -> impl Iterator<Item = usize> + '_ {
    (1..sample.ids.len()).filter(|i| sample.weights[*i] > 0.0).map(|i| i - 1)
}

/// Mean loss over the counted tokens of all rows together.
fn loss(model: &GptOss, overlay: &dyn Overlay, samples: &[Sample]) -> Result<f64> {
    let (mut sum, mut weight) = (0.0, 0.0);
    for sample in samples {
        let scored = score(model, overlay, &sample.ids, None)?;
        for (logprob, counts) in scored.logprobs.iter().zip(&sample.weights[1..]) {
            sum -= f64::from(*logprob) * f64::from(*counts);
            weight += f64::from(*counts);
        }
    }
    Ok(sum / weight)
}

/// The logarithm of the probability of every token at every counted position.
fn distributions(model: &GptOss, overlay: &dyn Overlay, sample: &Sample) -> Result<Vec<f32>> {
    let batch = Batch::new([&sample.ids[..]], model.config.vocab_size)?;
    let hidden = model.hidden(&batch, overlay);
    let positions: Vec<i32> = counted(sample).map(|i| i as i32).collect();
    let mut all = Vec::new();
    for some in positions.chunks(AT_ONCE) {
        let at = TensorData::new(some.to_vec(), [some.len()]);
        let at = Tensor::from_data(at, (model.device(), DType::I32));
        let mut logits = read_floats(model.logits(hidden.clone().select(0, at)))?;
        for row in logits.chunks_exact_mut(model.config.vocab_size) {
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|x| f64::from(x - most).exp()).sum();
            let shift = f64::from(most) + sum.ln();
            for x in row {
                *x = (f64::from(*x) - shift) as f32;
            }
        }
        all.extend(logits);
    }
    Ok(all)
}

/// Kullback-Leibler divergence of `q` from `p`, both as logarithms, in nats.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    p.iter().zip(q).map(|(p, q)| f64::from(*p).exp() * (f64::from(*p) - f64::from(*q))).sum()
}

/// The first of the likeliest.
fn likeliest(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests;
