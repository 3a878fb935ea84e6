//! AdamW over the adapters: descant-kernels' operator with this crate's settings.

use burn::tensor::Tensor;
use descant_kernels::{AdamWSpec, Clip, MomentFormat};
use descant_lora::LoraAdapters;

use crate::config::{OptimizerKind, TrainConfig};

/// The optimizer between steps.
#[derive(Debug)]
pub(crate) struct AdamW {
    inner: descant_kernels::AdamW,
}

impl AdamW {
    pub(crate) fn new(config: &TrainConfig, adapters: &LoraAdapters) -> Self {
        let format = match config.optimizer {
            OptimizerKind::AdamW => MomentFormat::Float,
            OptimizerKind::AdamW8bit => MomentFormat::Blocks,
        };
        Self { inner: descant_kernels::AdamW::new(format, adapters.tensors()) }
    }

    /// One update with gradients whose norm is `norm`, `[1]`, on their device.
    pub(crate) fn step(
        &mut self,
        config: &TrainConfig,
        rate: f64,
        norm: &Tensor<1>,
        adapters: &mut LoraAdapters,
        gradients: &[Tensor<3>],
    ) {
        let spec = AdamWSpec {
            beta1: config.beta1,
            beta2: config.beta2,
            epsilon: config.epsilon,
            weight_decay: config.weight_decay,
        };
        let clip = Clip { norm, max_norm: config.max_grad_norm };
        let parameters = adapters.tensors().cloned().collect();
        let updated = self.inner.step(parameters, gradients, rate, &spec, Some(clip));
        let mut updated = updated.into_iter();
        adapters.update(|_, _| updated.next().expect("a tensor comes back for each that was given"));
    }
}
