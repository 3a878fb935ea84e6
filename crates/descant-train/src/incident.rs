//! What happened when loss or gradient was non-finite: the step is looked at again, sample by sample, for the first
//! place that is not finite.
//!
//! The update was not made, so the adapters are those the step began with, and the same bytes go through them again.
//! This is slow and reads every activation at a site; it runs once, when the step has failed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use burn::tensor::Tensor;
use descant_kernels::{DeviceError, Groups, read_floats};
use descant_lora::LoraAdapters;
use descant_model::{Batch, GptOss, Overlay, Site};
use serde::Serialize;

use crate::error::Result;
use crate::sample::Sample;

/// Losses of earlier steps that are reported.
const LOSSES: usize = 20;

/// The first place that is not finite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// What: a trainable tensor, its gradient, the input of a site, or a loss.
    pub tensor: String,
    /// In which layer; `None` for the loss.
    pub layer: Option<usize>,
    /// In which row of the data; `None` where the tensor itself is at fault.
    pub row: Option<usize>,
    /// At which token of the row, from 0, where that is known.
    pub token: Option<usize>,
    /// The token's id.
    pub id: Option<u32>,
}

/// The content of `incident-STEP.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Incident {
    /// Version of the form.
    pub v: u32,
    /// Optimizer step, from 1.
    pub step: u64,
    /// What was not finite.
    pub what: String,
    /// Its value.
    pub value: String,
    /// Where it begins; `None` when it did not happen again.
    pub first: Option<Place>,
    /// Rows of the step, as their reader numbers them.
    pub rows: Vec<usize>,
    /// Norm of each trainable tensor, which the step has not changed.
    pub norms: BTreeMap<String, f32>,
    /// Losses of the steps before, the latest last.
    pub losses: Vec<f32>,
}

/// Looks into a step that failed.
///
/// # Errors
/// The samples are not those of a step; the device failed.
pub(crate) fn look(
    model: &GptOss,
    adapters: &LoraAdapters,
    samples: &[&Sample],
    (step, what, value): (u64, &str, f32),
    losses: &[f32],
) -> Result<Incident> {
    let norms = names(adapters).zip(adapters.tensors()).map(|((_, name), tensor)| {
        let square = read_floats(tensor.clone().inner().powi_scalar(2).sum())?[0];
        Ok((name, square.sqrt()))
    });
    Ok(Incident {
        v: 1,
        step,
        what: what.to_owned(),
        value: value.to_string(),
        first: first_place(model, adapters, samples)?,
        rows: samples.iter().map(|sample| sample.row).collect(),
        norms: norms.collect::<Result<_>>()?,
        losses: losses[losses.len().saturating_sub(LOSSES)..].to_vec(),
    })
}

/// Site and name of every trainable tensor.
fn names(adapters: &LoraAdapters) -> impl Iterator<Item = (Site, String)> {
    adapters.pairs().keys().flat_map(|site| ["A", "B"].map(|part| (*site, format!("{site} lora_{part}"))))
}

fn first_place(model: &GptOss, adapters: &LoraAdapters, samples: &[&Sample]) -> Result<Option<Place>> {
    for ((site, name), tensor) in names(adapters).zip(adapters.tensors()) {
        if first_bad(&read_floats(tensor.clone().inner())?).is_some() {
            let layer = Some(site.layer);
            return Ok(Some(Place { tensor: name, layer, row: None, token: None, id: None }));
        }
    }
    let plain = adapters.frozen();
    for sample in samples {
        let place = in_forward(model, &plain, sample)?;
        let place = if place.is_some() { place } else { in_backward(model, adapters, sample)? };
        if place.is_some() {
            return Ok(place);
        }
    }
    Ok(None)
}

fn in_forward(model: &GptOss, adapters: &LoraAdapters, sample: &Sample) -> Result<Option<Place>> {
    let at = |tensor: String, layer, token: usize| {
        let id = sample.ids.get(token).copied();
        Some(Place { tensor, layer, row: Some(sample.row), token: Some(token), id })
    };
    let (hidden, found) = probe(model, adapters, &sample.ids)?;
    if found.is_some() {
        // A token sees those before it only, so the shortest beginning that is bad ends with the token at fault.
        // (In the whole row others may be bad too: a product over masked places makes NaN of infinity times zero.)
        let (mut good, mut bad) = (0, sample.ids.len());
        let mut first = found;
        while bad - good > 1 {
            let middle = good.midpoint(bad);
            match probe(model, adapters, &sample.ids[..middle])?.1 {
                None => good = middle,
                found => (bad, first) = (middle, found),
            }
        }
        return Ok(first.and_then(|(what, site)| at(format!("{what} of {site}"), Some(site.layer), bad - 1)));
    }
    let (rows, ids): (Vec<usize>, Vec<u32>) = sample.targets().map(|target| (target.row, target.id)).unzip();
    if rows.is_empty() {
        return Ok(None);
    }
    let losses = read_floats(model.token_losses(hidden, &rows, &ids))?;
    Ok(first_bad(&losses).and_then(|bad| at("loss".to_owned(), None, rows[bad] + 1)))
}

/// The final hidden states of these tokens, and the first site where something is not finite.
fn probe(
    model: &GptOss,
    adapters: &LoraAdapters,
    ids: &[u32],
) -> Result<(Tensor<2>, Option<(&'static str, Site)>)> {
    let batch = Batch::new([ids], model.config.vocab_size)?;
    let probe = Probe { adapters, found: Cell::new(None), failed: RefCell::new(None) };
    let hidden = model.hidden(&batch, &probe);
    match probe.failed.into_inner() {
        Some(error) => Err(error.into()),
        None => Ok((hidden, probe.found.get())),
    }
}

fn in_backward(model: &GptOss, adapters: &LoraAdapters, sample: &Sample) -> Result<Option<Place>> {
    let (rows, ids): (Vec<usize>, Vec<u32>) = sample.targets().map(|target| (target.row, target.id)).unzip();
    if rows.is_empty() {
        return Ok(None);
    }
    let batch = Batch::new([sample.ids.as_slice()], model.config.vocab_size)?;
    let hidden = model.hidden(&batch, adapters);
    let mut grads = model.token_losses(hidden, &rows, &ids).sum().backward();
    for ((site, name), tensor) in names(adapters).zip(adapters.tensors()) {
        let Some(gradient) = tensor.grad_remove(&mut grads) else { continue };
        // One that is finite by itself and not in its square still has no norm.
        if read_floats(gradient)?.iter().any(|x| !(x * x).is_finite()) {
            let tensor = format!("gradient of {name}");
            let (layer, row) = (Some(site.layer), Some(sample.row));
            return Ok(Some(Place { tensor, layer, row, token: None, id: None }));
        }
    }
    Ok(None)
}

/// Reads along at every site.
struct Probe<'a> {
    adapters: &'a LoraAdapters,
    found: Cell<Option<(&'static str, Site)>>,
    /// The device's first failure: what is read after it means nothing.
    failed: RefCell<Option<DeviceError>>,
}

impl Probe<'_> {
    fn look(&self, what: &'static str, site: Site, tensor: &Tensor<2>) {
        if self.found.get().is_some() || self.failed.borrow().is_some() {
            return;
        }
        match read_floats(tensor.clone()) {
            Ok(values) if first_bad(&values).is_some() => self.found.set(Some((what, site))),
            Ok(_) => {}
            Err(error) => *self.failed.borrow_mut() = Some(error),
        }
    }
}

impl Overlay for Probe<'_> {
    fn delta(&self, site: Site, x: &Tensor<2>, groups: &Groups) -> Option<Tensor<2>> {
        self.look("input", site, x);
        let delta = self.adapters.delta(site, x, groups);
        if let Some(delta) = &delta {
            self.look("adapter's output", site, delta);
        }
        delta
    }
}

fn first_bad(values: &[f32]) -> Option<usize> {
    values.iter().position(|value| !value.is_finite())
}
