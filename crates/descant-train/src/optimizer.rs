//! AdamW with f32 moments, as torch computes it.
//!
//! Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization"; the order of operations is that of
//! `torch.optim.AdamW`, so that losses can be compared step by step.

use burn::tensor::{DType, Tensor, TensorData};
use descant_lora::LoraAdapters;

use crate::config::TrainConfig;

/// Keeps the clipping factor finite, as in `torch.nn.utils.clip_grad_norm_`.
const CLIP_EPSILON: f64 = 1e-6;

/// Moments of every trainable tensor.
#[derive(Debug)]
pub(crate) struct AdamW {
    moments: Vec<Option<[Tensor<3>; 2]>>,
    steps: i32,
}

impl AdamW {
    pub(crate) fn new(adapters: &LoraAdapters) -> Self {
        Self { moments: adapters.tensors().map(|_| None).collect(), steps: 0 }
    }

    /// Updates made.
    pub(crate) fn updates(&self) -> u64 {
        self.steps as u64
    }

    /// Both moments of each tensor, where there was an update, and the number of updates.
    pub(crate) fn state(&self) -> (Vec<Option<[Vec<f32>; 2]>>, u32) {
        let host = |tensor: &Tensor<3>| tensor.clone().into_data().try_to_vec().expect("moments are f32");
        let pair = |[first, second]: &[Tensor<3>; 2]| [host(first), host(second)];
        (self.moments.iter().map(|moments| moments.as_ref().map(pair)).collect(), self.steps as u32)
    }

    /// Goes back to such a state, which was checked to be of these adapters.
    pub(crate) fn restore(
        &mut self,
        adapters: &LoraAdapters,
        moments: &[Option<[Vec<f32>; 2]>],
        updates: u32,
    ) {
        let on_device = |like: &Tensor<3>, values: &[f32]| {
            let like = like.clone().inner();
            let data = TensorData::new(values.to_vec(), like.dims());
            Tensor::from_data(data, (&like.device(), DType::F32))
        };
        let pair = |(like, pair): (&Tensor<3>, &Option<[Vec<f32>; 2]>)| {
            pair.as_ref().map(|[first, second]| [on_device(like, first), on_device(like, second)])
        };
        self.moments = adapters.tensors().zip(moments).map(pair).collect();
        self.steps = updates as i32;
    }

    /// One update with gradients scaled by `factor`.
    pub(crate) fn step(
        &mut self,
        config: &TrainConfig,
        rate: f64,
        factor: f64,
        adapters: &mut LoraAdapters,
        gradients: &[Tensor<3>],
    ) {
        self.steps += 1;
        let correction1 = 1.0 - config.beta1.powi(self.steps);
        let correction2 = 1.0 - config.beta2.powi(self.steps);
        adapters.update(|index, parameter| {
            let gradient = gradients[index].clone() * factor;
            let fresh = || [gradient.zeros_like(), gradient.zeros_like()];
            let [first, second] = self.moments[index].take().unwrap_or_else(fresh);
            let first = first * config.beta1 + gradient.clone() * (1.0 - config.beta1);
            let second = second * config.beta2 + gradient.powi_scalar(2) * (1.0 - config.beta2);
            let denominator = second.clone().sqrt() / correction2.sqrt() + config.epsilon;
            let device = parameter.device();
            let decayed = parameter.inner() * (1.0 - rate * config.weight_decay);
            let updated = decayed - first.clone() / denominator * (rate / correction1);
            self.moments[index] = Some([first, second]);
            let updated = Tensor::from_inner(updated);
            debug_assert_eq!(updated.device(), device);
            updated.require_grad()
        });
    }
}

/// Norm of all gradients together.
pub(crate) fn norm(gradients: &[Tensor<3>]) -> f32 {
    let squares = gradients.iter().map(|g| g.clone().powi_scalar(2).sum()).collect();
    Tensor::cat(squares, 0).sum().sqrt().into_scalar()
}

/// What gradients of this norm are multiplied by.
pub(crate) fn clip_factor(norm: f32, max_norm: f64) -> f64 {
    (max_norm / (f64::from(norm) + CLIP_EPSILON)).min(1.0)
}
