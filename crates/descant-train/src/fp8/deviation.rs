//! Figures of one pass beside another, and the gates that they are compared with.

use serde::{Deserialize, Deserializer, Serialize};

/// Gradients by site and factor.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Gradients(Vec<(String, Vec<f32>)>);

/// How far gradients are from others.
pub(super) struct Compared {
    pub(super) count: usize,
    pub(super) zero: usize,
    pub(super) cosine: Option<Worst>,
    pub(super) norm: Option<Worst>,
}

/// A figure, and the tensor that has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worst {
    /// Site and factor.
    pub tensor: String,
    /// The figure.
    #[serde(deserialize_with = "number")]
    pub value: f64,
}

/// How far a forward and backward with experts in fp8 are from the same in bf16. JSON has `null` for what is not a number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deviation {
    /// Sequences that went through the model.
    pub conversations: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Tokens of them that carry loss.
    pub trained_tokens: usize,
    /// Trained tokens whose distributions were compared.
    pub compared_tokens: usize,
    /// Mean loss in nats with experts in bf16.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// The same in fp8.
    #[serde(deserialize_with = "number")]
    pub loss_fp8: f64,
    /// Mean divergence of the next token's probabilities in fp8 from those in bf16, in nats.
    #[serde(deserialize_with = "number")]
    pub divergence: f64,
    /// Tensors of the adapter whose gradients were compared.
    pub gradients: usize,
    /// Tensors whose gradient is zero in both, as that of each A is while its B is zero. They are not compared.
    pub zero_gradients: usize,
    /// The least cosine of a gradient with the same in bf16.
    pub cosine: Option<Worst>,
    /// The largest difference of a gradient's norm, in parts of that in bf16.
    pub norm: Option<Worst>,
}

/// How far a step in fp8 may be from one in bf16.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gates {
    /// Of the mean loss, in parts of it.
    pub loss: f64,
    /// Mean divergence of a token, in nats.
    pub divergence: f64,
    /// Least cosine of a gradient.
    pub cosine: f64,
    /// Difference of its norm, in parts of it.
    pub norm: f64,
}

impl Gates {
    /// What a whole model should hold. It is what was asked for before experts in fp8 were built.
    pub const WHOLE_MODEL: Self = Self { loss: 2e-3, divergence: 2e-3, cosine: 0.995, norm: 2e-2 };
}

/// A number, or what was none.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// Whether a value is no more than so much; what is not a number is not.
fn is_within(value: f64, most: f64) -> bool {
    value <= most
}

/// Cosine of two gradients, and how much longer or shorter the second is, in parts of the first; `None` where both are
/// zero. One that is zero alone has no direction, and is all of the other's length off.
fn compared(one: &[f32], other: &[f32]) -> Option<(f64, f64)> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let [a, b] = [dot(one, one).sqrt(), dot(other, other).sqrt()];
    match (a == 0.0, b == 0.0) {
        (true, true) => None,
        (true, false) => Some((0.0, 1.0)),
        (false, true) => Some((0.0, -1.0)),
        (false, false) => Some((dot(one, other) / (a * b), b / a - 1.0)),
    }
}

impl Gradients {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn extend(&mut self, more: impl Iterator<Item = (String, Vec<f32>)>) {
        self.0.extend(more);
    }

    /// All of them beside the same of another pass.
    pub(super) fn compared(&self, other: &Self) -> Compared {
        assert_eq!(self.0.len(), other.0.len(), "gradients of one adapter");
        let mut all = Compared { count: 0, zero: 0, cosine: None, norm: None };
        for ((name, one), (same, other)) in self.0.iter().zip(&other.0) {
            assert_eq!((name, one.len()), (same, other.len()), "gradients of one adapter");
            let Some((cosine, norm)) = compared(one, other) else {
                all.zero += 1;
                continue;
            };
            all.count += 1;
            let worst = |value| Some(Worst { tensor: name.clone(), value });
            // Neither way round is what is not a number within anything: it is the worst, and stays so.
            if all
                .cosine
                .as_ref()
                .is_none_or(|least| !is_within(least.value, cosine) && !least.value.is_nan())
            {
                all.cosine = worst(cosine);
            }
            let is_more = |most: &Worst| !is_within(norm.abs(), most.value.abs()) && !most.value.is_nan();
            if all.norm.as_ref().is_none_or(is_more) {
                all.norm = worst(norm);
            }
        }
        all
    }
}

impl Deviation {
    /// The difference of the loss in fp8, in parts of that in bf16.
    pub fn of_loss(&self) -> f64 {
        self.loss_fp8 / self.loss - 1.0
    }

    /// For people.
    pub fn words(&self) -> String {
        let loss = 100.0 * self.of_loss();
        let way = if loss > 0.0 { "higher" } else { "lower" };
        let all = self.gradients + self.zero_gradients;
        let gradients = match (&self.cosine, &self.norm) {
            (Some(cosine), Some(norm)) => format!(
                "gradients' least cosine {:.4} ({}), norms within {:.2} % ({})",
                cosine.value,
                cosine.tensor,
                100.0 * norm.value.abs(),
                norm.tensor
            ),
            _ => "no gradients".to_owned(),
        };
        let zero = match self.zero_gradients {
            0 => String::new(),
            zero => format!("; {zero} of {all} gradients are zero in both"),
        };
        format!(
            "fp8 beside bf16 on {} tokens: loss {:.3} % {way}, mean divergence {:.1e} nats, {gradients}{zero}",
            self.tokens,
            loss.abs(),
            self.divergence
        )
    }

    /// What is beyond a gate, each with its figure.
    pub fn beyond(&self, gates: &Gates) -> Vec<String> {
        let loss = self.of_loss();
        let of_loss = (!is_within(loss.abs(), gates.loss)).then(|| {
            format!("the loss differs by {:.2} % (at most {:.2} %)", 100.0 * loss.abs(), 100.0 * gates.loss)
        });
        let divergence = (!is_within(self.divergence, gates.divergence)).then(|| {
            format!("the mean divergence is {:.1e} nats (at most {:.1e})", self.divergence, gates.divergence)
        });
        let cosine =
            self.cosine.as_ref().filter(|least| !is_within(gates.cosine, least.value)).map(|least| {
                format!(
                    "the gradient of {} has a cosine of {:.4} (at least {})",
                    least.tensor, least.value, gates.cosine
                )
            });
        let norm = self.norm.as_ref().filter(|most| !is_within(most.value.abs(), gates.norm)).map(|most| {
            format!(
                "the norm of the gradient of {} differs by {:.1} % (at most {:.1} %)",
                most.tensor,
                100.0 * most.value.abs(),
                100.0 * gates.norm
            )
        });
        [of_loss, divergence, cosine, norm].into_iter().flatten().collect()
    }

    /// What is said where something is beyond the gates of a whole model.
    pub fn warning(&self) -> Option<String> {
        let beyond = self.beyond(&Gates::WHOLE_MODEL);
        (!beyond.is_empty()).then(|| {
            format!(
                "experts in fp8 are further from bf16 than they should be, on this model and data: {}; train.experts = \
                 \"bf16\" does not round so",
                beyond.join("; ")
            )
        })
    }
}

#[cfg(test)]
mod tests;
