//! AdamW over the adapters: descant-kernels' operator with this crate's settings, and its state on the host.

use burn::tensor::{DType, Device, Tensor, TensorData};
use descant_kernels::{AdamWSpec, Clip, DeviceError, MomentFormat, Update, read_bytes, read_floats};
use descant_lora::LoraAdapters;

use crate::config::{OptimizerKind, TrainConfig};
use crate::state::SavedMoments;

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

    /// How moments are kept.
    pub(crate) fn format(&self) -> MomentFormat {
        self.inner.format()
    }

    /// Updates made.
    pub(crate) fn updates(&self) -> u32 {
        u32::try_from(self.inner.steps()).expect("steps are counted up from 0")
    }

    /// Both moments of each tensor.
    pub(crate) fn moments(&self) -> Result<Vec<SavedMoments>, DeviceError> {
        let each = self.inner.moments().iter().map(|moments| match moments {
            descant_kernels::Moments::Float { first, second } => {
                Ok(SavedMoments::Float([read_floats(first.clone())?, read_floats(second.clone())?]))
            }
            descant_kernels::Moments::Blocks { codes: [of_first, of_second], scales: [first, second] } => {
                Ok(SavedMoments::Blocks {
                    codes: [read_bytes(of_first.clone())?, read_bytes(of_second.clone())?],
                    scales: [read_floats(first.clone())?, read_floats(second.clone())?],
                })
            }
        });
        each.collect()
    }

    /// Goes back to moments and a count of updates that were checked to be of these adapters and this optimizer.
    pub(crate) fn restore(
        &mut self,
        device: &Device,
        adapters: &LoraAdapters,
        moments: &[SavedMoments],
        updates: u32,
    ) {
        let line = |values: &Vec<f32>| {
            Tensor::<1>::from_data(TensorData::new(values.clone(), [values.len()]), (device, DType::F32))
        };
        let codes = |values: &Vec<u8>| {
            Tensor::from_data(TensorData::new(values.clone(), [values.len()]), (device, DType::U8))
        };
        let each = adapters.tensors().zip(moments).map(|(tensor, moments)| match moments {
            SavedMoments::Float(pair) => {
                let [first, second] = pair.each_ref().map(|values| line(values).reshape(tensor.dims()));
                descant_kernels::Moments::Float { first, second }
            }
            SavedMoments::Blocks { codes: pair, scales } => descant_kernels::Moments::Blocks {
                codes: pair.each_ref().map(codes),
                scales: scales.each_ref().map(line),
            },
        });
        let updates = i32::try_from(updates).expect("the count was checked");
        self.inner = descant_kernels::AdamW::from_parts(self.format(), each.collect(), updates);
    }

    /// An update with gradients whose norm is `norm`, `[1]`, on their device: all but its effect.
    pub(crate) fn prepare(
        &mut self,
        config: &TrainConfig,
        rate: f64,
        norm: &Tensor<1>,
        adapters: &LoraAdapters,
        gradients: &[Tensor<3>],
    ) -> Update {
        let spec = AdamWSpec {
            beta1: config.beta1,
            beta2: config.beta2,
            epsilon: config.epsilon,
            weight_decay: config.weight_decay,
        };
        let clip = Clip { norm, max_norm: config.max_grad_norm };
        let parameters = adapters.tensors().cloned().collect();
        self.inner.prepare(parameters, gradients, rate, &spec, Some(clip))
    }

    /// Its effect.
    pub(crate) fn apply(&mut self, update: Update, adapters: &mut LoraAdapters) {
        let mut updated = self.inner.apply(update).into_iter();
        adapters.update(|_, _| updated.next().expect("a tensor comes back for each that was given"));
    }
}
