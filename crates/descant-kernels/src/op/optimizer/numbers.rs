//! The numbers of an update: those that stay for a run, and those of one step.

use burn::tensor::Tensor;

/// Keeps the clipping factor finite, as in `torch.nn.utils.clip_grad_norm_`.
const CLIP_EPSILON: f64 = 1e-6;

/// AdamW's numbers that stay for a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWSpec {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Offset of the denominator.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// Gradients are scaled down where their norm is larger than this.
#[derive(Debug, Clone, Copy)]
pub struct Clip<'a> {
    /// Norm of all gradients together, from [`grad_norm`](crate::grad_norm): `[1]`.
    pub norm: &'a Tensor<1>,
    /// Largest norm that is let through.
    pub max_norm: f64,
}

impl Clip<'_> {
    /// What gradients of this norm are multiplied by.
    pub(super) fn factor(norm: f32, max_norm: f64) -> f64 {
        (max_norm / (f64::from(norm) + CLIP_EPSILON)).min(1.0)
    }
}

/// The numbers of one step, as the formulas need them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepNumbers {
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    /// `sqrt(1 - beta2^t)`
    pub(crate) correction2: f64,
    pub(crate) epsilon: f64,
    /// What decay leaves of a parameter.
    pub(crate) keep: f64,
    /// `rate / (1 - beta1^t)`
    pub(crate) rate: f64,
}

impl StepNumbers {
    pub(super) fn new(spec: &AdamWSpec, rate: f64, step: i32) -> Self {
        Self {
            beta1: spec.beta1,
            beta2: spec.beta2,
            correction2: (1.0 - spec.beta2.powi(step)).sqrt(),
            epsilon: spec.epsilon,
            keep: 1.0 - rate * spec.weight_decay,
            rate: rate / (1.0 - spec.beta1.powi(step)),
        }
    }
}
