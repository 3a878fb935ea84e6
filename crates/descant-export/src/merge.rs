//! The numbers of an export, tensor by tensor, in pieces: base plus update in f32, rounded once.
//!
//! What no update reaches is never computed with: it is copied where the type is the same, and otherwise converted.
//! That holds down to a row of an expert. Of a layer's experts a few are in memory at a time, one for each core.

use std::collections::BTreeMap;

use descant_lora::peft::Sites;
use descant_model::{Part, Site};
use rayon::prelude::*;
use safetensors::Dtype;

use crate::base::{Base, bf16_of, floats, to_bytes};
use crate::error::{Error, Result};
use crate::experts::{Made, Recipe};
use crate::form::{Experts, Select};
use crate::plan::{OutTensor, Rows, Source, Type, expert_site};
use crate::survival::{Sums, row_sums};
use crate::update::Update;

/// Elements of a tensor that are read at a time.
const PIECE: usize = 4 << 20;
/// Experts may take so much memory at a time, whatever the number of cores.
const EXPERTS_BYTES: usize = 1 << 30;
/// Of the update that the adapter reads, the share that may be lost before an export is refused.
pub(crate) const MOST_LOST: f64 = 0.5;

/// Takes a tensor's bytes in order.
pub(crate) type Sink<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

/// What became of a weight that an update reached, or that was packed again.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    pub(crate) sums: Sums,
    /// Whether an update reached it; otherwise it was only packed.
    pub(crate) updated: bool,
}

/// Base and updates.
pub(crate) struct Merger {
    pub(crate) base: Base,
    updates: BTreeMap<Site, Update>,
    experts: Experts,
    allow_loss: bool,
    /// Scales of experts whose blocks were written.
    scales: BTreeMap<Site, Vec<u8>>,
    /// What became of weights, by site.
    pub(crate) outcomes: BTreeMap<Site, Outcome>,
    /// Tensors that no update reached and that were rounded to a narrower type, with a loss.
    pub(crate) rounded: Vec<String>,
}

impl Merger {
    pub(crate) fn new(base: Base, sites: Sites, experts: Experts, allow_loss: bool) -> Self {
        let updates = sites
            .into_iter()
            .filter_map(|(site, factors)| {
                Some((site, Update::new(factors, base.config.site_dims(site.kind))?))
            })
            .collect();
        let (scales, outcomes, rounded) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { base, updates, experts, allow_loss, scales, outcomes, rounded }
    }

    /// Whether an update reaches a part.
    pub(crate) fn reaches(&self, part: Part) -> bool {
        part.site().is_some_and(|site| self.updates.contains_key(&site))
    }

    /// Hands the bytes of a tensor to `sink`.
    pub(crate) fn produce(&mut self, tensor: &OutTensor, sink: &mut Sink<'_>) -> Result<()> {
        match (tensor.source, tensor.kind) {
            (Source::Float { part, select }, Type::Plain(dtype)) => self.float(part, select, dtype, sink),
            (Source::Experts { site, select, rows }, _) => self.experts(site, select, rows, sink),
            (Source::Scales { site }, _) => sink(&self.scales.remove(&site).unwrap_or_default()),
            (Source::Float { .. }, Type::GgmlMxfp4) => {
                unreachable!("only experts are packed")
            }
        }
    }

    /// A part that is not an expert's weight.
    fn float(&mut self, part: Part, select: Select, dtype: Dtype, sink: &mut Sink<'_>) -> Result<()> {
        let shape = part.shape(&self.base.config);
        let n: usize = shape.iter().product();
        // Only matrices have updates, and those of experts are elsewhere; the rest may be cut anywhere.
        let update =
            part.site().filter(|_| expert_site(part).is_none()).and_then(|site| self.updates.get(&site));
        let width = if update.is_some() { shape[1] } else { 1 };
        let step = (PIECE / width).max(1) * width;
        let as_it_is = update.is_none() && select == Select::All && self.base.dtype(part) == Some(dtype);
        let mut outcome = Outcome { updated: update.is_some(), ..Outcome::default() };
        let mut rounded = false;
        for start in (0..n).step_by(step) {
            let elements = start..n.min(start + step);
            if as_it_is && self.base.is_plain(part) {
                sink(&self.copied(part, elements, dtype)?)?;
                continue;
            }
            let first_row = start / width;
            let mut values = self.base.floats(part, elements)?;
            let before = if update.is_some() { values.clone() } else { Vec::new() };
            if let Some(update) = update {
                add(&mut values, update, width, first_row);
            }
            let values = select.rows(values, 1);
            if let Some(element) =
                values.iter().position(|x| !(x.is_finite() && round(*x, dtype).is_finite()))
            {
                return Err(Error::NotFinite { tensor: part.name(), element: start + element });
            }
            if let Some(update) = update {
                outcome.sums += sums(&before, &values, dtype, update, width, first_row);
            } else {
                rounded |= values.iter().any(|x| round(*x, dtype).to_bits() != x.to_bits());
            }
            sink(&numbers(&values, dtype))?;
        }
        if rounded {
            self.rounded.push(part.name());
        }
        if let (true, Some(site)) = (outcome.updated, part.site()) {
            self.outcomes.insert(site, outcome);
        }
        Ok(())
    }

    /// Bytes as they are, once every number was seen to be one.
    fn copied(&self, part: Part, elements: std::ops::Range<usize>, dtype: Dtype) -> Result<Vec<u8>> {
        let size = dtype.bitsize() / 8;
        let name = part.name();
        let range = (elements.start * size) as u64..(elements.end * size) as u64;
        let bytes = self.base.bytes(self.base.place(&name)?, range)?;
        match floats(&bytes, dtype).iter().position(|x| !x.is_finite()) {
            Some(at) => Err(self.base.not_finite(&name, elements.start + at)),
            None => Ok(bytes),
        }
    }

    /// The weights of a layer's experts.
    fn experts(&mut self, site: Site, select: Select, rows: Rows, sink: &mut Sink<'_>) -> Result<()> {
        let dims = self.base.config.site_dims(site.kind);
        let recipe = Recipe {
            base: &self.base,
            update: self.updates.get(&site),
            rounding: self.experts.rounding(),
            site,
            select,
            rows,
        };
        // The numbers as f32, twice, and what is made of them.
        let one = 10 * dims.d_in * dims.d_out;
        let at_once = rayon::current_num_threads().clamp(1, (EXPERTS_BYTES / one.max(1)).max(1));
        let all: Vec<usize> = (0..dims.n_matrices).collect();
        let mut outcome = Outcome::default();
        let mut scales = Vec::new();
        for experts in all.chunks(at_once) {
            let made: Vec<Result<Made>> = experts.par_iter().map(|&expert| recipe.make(expert)).collect();
            for made in made {
                let made = made?;
                sink(&made.bytes)?;
                scales.extend(made.scales);
                outcome.updated |= made.updated;
                outcome.sums += made.sums;
            }
        }
        if rows == Rows::Blocks {
            self.scales.insert(site, scales);
        }
        // Gate and up are one weight.
        let all = self.outcomes.entry(site).or_default();
        all.sums += outcome.sums;
        all.updated |= outcome.updated;
        let whole = *all;
        // Of gate alone nothing can be said.
        if self.allow_loss || !matches!(rows, Rows::Blocks | Rows::Ggml) || select == Select::Even {
            return Ok(());
        }
        let tensor = || Part::weight(site).name();
        match whole.sums.survival().and_then(|survival| survival.a_error) {
            Some(lost) if lost > MOST_LOST => Err(Error::Lost { tensor: tensor(), lost: 100.0 * lost }),
            None if whole.sums.error > 0.0 => {
                let error = 100.0 * crate::survival::share(whole.sums.error, whole.sums.weight);
                Err(Error::Repacked { tensor: tensor(), error })
            }
            _ => Ok(()),
        }
    }
}

/// Adds the update to rows from `first_row` on.
fn add(values: &mut [f32], update: &Update, width: usize, first_row: usize) {
    values.par_chunks_mut(width).enumerate().for_each_init(
        || vec![0.0; width],
        |delta, (row, values)| {
            update.row(0, first_row + row, delta);
            values.iter_mut().zip(&*delta).for_each(|(x, d)| *x += d);
        },
    );
}

/// What rounding the sums does to the update; rows are added up in order.
fn sums(before: &[f32], after: &[f32], dtype: Dtype, update: &Update, width: usize, first: usize) -> Sums {
    let rows: Vec<Sums> = before
        .par_chunks_exact(width)
        .zip(after.par_chunks_exact(width))
        .enumerate()
        .map_init(
            || vec![0.0; width],
            |delta, (row, (before, after))| {
                update.row(0, first + row, delta);
                row_sums(before, after, delta, |x| round(x, dtype))
            },
        )
        .collect();
    let mut all = Sums::default();
    for row in rows {
        all += row;
    }
    all
}

/// As it will be read back.
fn round(x: f32, dtype: Dtype) -> f32 {
    match dtype {
        Dtype::BF16 => bf16_of(x).to_f32(),
        Dtype::F16 => half::f16::from_f32(x).to_f32(),
        _ => x,
    }
}

fn numbers(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::BF16 => to_bytes(values, |x| bf16_of(x).to_le_bytes()),
        Dtype::F16 => to_bytes(values, |x| half::f16::from_f32(x).to_le_bytes()),
        _ => to_bytes(values, f32::to_le_bytes),
    }
}
