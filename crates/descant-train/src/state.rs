//! Everything that an optimizer step changes, on the host and to the bit.

use burn::tensor::Tensor;
use descant_kernels::MomentFormat;
use descant_lora::LoraAdapters;
use descant_model::Site;

/// Both moments of a tensor, its elements in row-major order, as the optimizer keeps them.
#[derive(Debug, Clone, PartialEq)]
pub enum SavedMoments {
    /// As f32: the first moment, then the second.
    Float([Vec<f32>; 2]),
    /// In blocks of 256: a code an element, a scale a block.
    Blocks {
        /// Of the first moment, then of the second.
        codes: [Vec<u8>; 2],
        /// Likewise.
        scales: [Vec<f32>; 2],
    },
}

/// A trainer between two steps.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerState {
    /// Optimizer steps done; the schedule's position too.
    pub steps: u64,
    /// Updates made: steps that were passed over are not among them.
    pub updates: u32,
    /// Each trainable tensor, in the order of [`LoraAdapters::tensors`].
    pub adapters: Vec<Vec<f32>>,
    /// The moments of each.
    pub moments: Vec<SavedMoments>,
    /// Whether each matrix of each tensor ever had a gradient; `None` once that is proven.
    pub alive: Option<Vec<Vec<bool>>>,
    /// Experts at each site that no gradient reached.
    pub unreached: Vec<(Site, usize)>,
}

impl TrainerState {
    /// Whether this can be the state of these adapters.
    pub(crate) fn check(&self, adapters: &LoraAdapters) -> Result<(), String> {
        let sizes: Vec<[usize; 3]> = adapters.tensors().map(Tensor::dims).collect();
        let expected: usize = sizes.len();
        if self.adapters.len() != expected || self.moments.len() != expected {
            return Err(format!(
                "a state of {} tensors and {} pairs of moments for {expected} tensors",
                self.adapters.len(),
                self.moments.len()
            ));
        }
        for (index, dims) in sizes.iter().enumerate() {
            let count = dims.iter().product::<usize>();
            let wrong = |what| format!("tensor {index}: {what}");
            check_values(&self.adapters[index], count).map_err(wrong)?;
            self.moments[index].check(count).map_err(wrong)?;
        }
        if let Some(alive) = &self.alive {
            let fits = alive.len() == expected
                && alive.iter().zip(&sizes).all(|(alive, dims)| alive.len() == dims[0]);
            if !fits {
                return Err("the proof of gradients is of other adapters".to_owned());
            }
        }
        if self.updates > i32::MAX as u32 {
            return Err(format!("{} updates; there cannot have been so many", self.updates));
        }
        Ok(())
    }

    /// Whether an optimizer that keeps its moments in this format can continue from here.
    pub(crate) fn check_format(&self, here: MomentFormat) -> Result<(), String> {
        match self.moments.iter().map(SavedMoments::format).find(|there| *there != here) {
            Some(there) => Err(format!("its moments are {}, here they are {}", told(there), told(here))),
            None => Ok(()),
        }
    }
}

impl SavedMoments {
    /// How they are kept.
    fn format(&self) -> MomentFormat {
        match self {
            Self::Float(_) => MomentFormat::Float,
            Self::Blocks { .. } => MomentFormat::Blocks,
        }
    }

    /// Whether they are the moments of so many elements.
    fn check(&self, count: usize) -> Result<(), String> {
        match self {
            Self::Float(pair) => pair.iter().try_for_each(|values| check_values(values, count)),
            Self::Blocks { codes, scales } => {
                if let Some(codes) = codes.iter().find(|codes| codes.len() != count) {
                    return Err(format!("{} codes of moments for {count} elements", codes.len()));
                }
                scales.iter().try_for_each(|values| check_values(values, MomentFormat::Blocks.scales(count)))
            }
        }
    }
}

/// A format in words.
fn told(format: MomentFormat) -> &'static str {
    match format {
        MomentFormat::Float => "f32 (train.optimizer = \"adamw\")",
        MomentFormat::Blocks => "8-bit (train.optimizer = \"adamw_8bit\")",
    }
}

fn check_values(values: &[f32], count: usize) -> Result<(), String> {
    if values.len() != count {
        return Err(format!("{} numbers in the state, {count} here", values.len()));
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(format!("element {at} of the state is {}", values[at])),
        None => Ok(()),
    }
}
