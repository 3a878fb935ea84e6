//! A micro-batch as the trainer works on it, and what it leaves behind: what goes through the model, which rows are
//! trained, and the losses that are read when a whole step is on its way.

use burn::tensor::Tensor;
use descant_kernels::read_all;
use descant_model::Batch;

use crate::error::Result;
use crate::sample::Sample;

/// See the head of the file.
pub(crate) struct Work {
    pub(crate) batch: Batch,
    /// Rows of the hidden states that are trained, and the token that is to follow each.
    pub(crate) rows: Vec<usize>,
    pub(crate) ids: Vec<u32>,
    /// Their weights, and the same divided by the weight of the whole step.
    pub(crate) weights: Vec<f32>,
    pub(crate) shares: Vec<f32>,
    /// Whether each is the first of an analysis.
    pub(crate) first: Vec<bool>,
}

impl Work {
    /// Of samples, in a step of this weight.
    ///
    /// # Errors
    /// There is none, or an id is outside the vocabulary.
    pub(crate) fn new(samples: &[&Sample], of_step: f64, vocabulary: usize) -> Result<Self> {
        let batch = Batch::new(samples.iter().map(|s| s.ids.as_slice()), vocabulary)?;
        let (mut rows, mut ids, mut weights, mut first) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut start = 0;
        for sample in samples {
            for target in sample.targets() {
                rows.push(start + target.row);
                ids.push(target.id);
                weights.push(target.weight);
                first.push(target.is_first_analysis);
            }
            start += sample.ids.len();
        }
        let shares = weights.iter().map(|w| (f64::from(*w) / of_step) as f32).collect();
        Ok(Self { batch, rows, ids, weights, shares, first })
    }
}

/// The losses of micro-batches on their way: of each, those of its trained tokens.
pub(crate) type Losses = Vec<Tensor<1>>;

/// Reads losses from the device, which is waited for.
///
/// # Errors
/// The device failed.
pub(crate) fn read_losses(losses: Losses) -> Result<Vec<Vec<f32>>> {
    Ok(read_all(losses)?)
}

/// The losses of a step's micro-batches, wherever they are.
pub(crate) enum Told {
    /// On their way.
    Underway(Losses),
    /// Here.
    Read(Vec<Vec<f32>>),
}

impl Told {
    /// The losses, and the number in `norm`: the device is waited for once.
    ///
    /// # Errors
    /// The device failed.
    pub(crate) fn read(self, norm: Tensor<1>) -> Result<(Vec<Vec<f32>>, f32)> {
        let (losses, known) = match self {
            Self::Underway(losses) => (losses, None),
            Self::Read(values) => (Losses::new(), Some(values)),
        };
        let mut values = read_losses([losses, vec![norm]].concat())?;
        let norm = values.pop().and_then(|of_norm| of_norm.first().copied()).unwrap_or(f32::NAN);
        Ok((known.unwrap_or(values), norm))
    }
}

/// Sums over the micro-batches of a step.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) loss: f64,
    pub(crate) tokens: usize,
    pub(crate) trained_tokens: usize,
    pub(crate) first_analysis: Mean,
}

impl Totals {
    /// Of micro-batches with their losses, in their order, in a step of so many tokens.
    pub(crate) fn new(tokens: usize, works: &[Work], losses: &[Vec<f32>]) -> Self {
        let mut totals = Self { tokens, ..Self::default() };
        for (work, losses) in works.iter().zip(losses) {
            totals.trained_tokens += losses.len();
            for ((value, weight), first) in losses.iter().zip(&work.weights).zip(&work.first) {
                totals.loss += f64::from(*value) * f64::from(*weight);
                if *first {
                    totals.first_analysis.add(*value);
                }
            }
        }
        totals
    }
}

#[derive(Default)]
pub(crate) struct Mean {
    sum: f64,
    n: usize,
}

impl Mean {
    fn add(&mut self, value: f32) {
        self.sum += f64::from(value);
        self.n += 1;
    }

    pub(crate) fn mean(&self) -> Option<f32> {
        (self.n > 0).then(|| (self.sum / self.n as f64) as f32)
    }
}
