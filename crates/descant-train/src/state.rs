//! Everything that an optimizer step changes, on the host and to the bit.

use burn::tensor::Tensor;
use descant_lora::LoraAdapters;
use descant_model::Site;

/// A trainer between two steps.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerState {
    /// Optimizer steps done; the schedule's position too.
    pub steps: u64,
    /// Updates made: steps that were passed over are not among them.
    pub updates: u32,
    /// Each trainable tensor, in the order of [`LoraAdapters::tensors`].
    pub adapters: Vec<Vec<f32>>,
    /// First and second moment of each; `None` before its first update.
    pub moments: Vec<Option<[Vec<f32>; 2]>>,
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
                "a state of {} tensors and {} moments for {expected} tensors",
                self.adapters.len(),
                self.moments.len()
            ));
        }
        for (index, dims) in sizes.iter().enumerate() {
            let count = dims.iter().product::<usize>();
            let moments = self.moments[index].iter().flatten();
            for values in std::iter::once(&self.adapters[index]).chain(moments) {
                if values.len() != count {
                    return Err(format!(
                        "tensor {index} has {} numbers in the state, {count} here",
                        values.len()
                    ));
                }
                if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                    return Err(format!("tensor {index}: element {at} of the state is {}", values[at]));
                }
            }
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
}
