//! How far a training step with experts in fp8 is from one in bf16, measured on the model and the conversations at hand:
//! rounding does to each network what its weights make of it.
//!
//! One micro-batch goes forward and backward in both forms ([`Pass`]); [`Deviation`] has the figures, and [`Gates`] say how
//! large they may be. No state of a training is touched: the same steps follow as without.

mod deviation;
mod first;
pub(crate) mod limits;
mod pass;

use descant_kernels::{Claim, ExpertForm};
use descant_lora::LoraAdapters;
use descant_model::GptOss;

use crate::config::Experts;
use crate::error::Result;
use crate::sample::Sample;
use crate::trainer::experts_in_bf16;

pub use deviation::{Deviation, Gates, Worst};
pub use first::measure_first;
pub use limits::{COMPARED_TOKENS, MEASURED_TOKENS};
pub use pass::Pass;

/// Measures on the first conversations of a micro-batch; `None` where none of them is trained.
///
/// # Errors
/// There are no kernels for experts in fp8 for the model's device or weights; a sample is malformed; the device failed.
pub fn measure(model: &GptOss, adapters: &LoraAdapters, samples: &[&Sample]) -> Result<Option<Deviation>> {
    let samples = chosen(samples);
    if samples.is_empty() {
        return Ok(None);
    }
    experts_in_bf16(model, Experts::Fp8)?;
    // One layout of memory for both forms, and for the steps that follow.
    let claim = Claim {
        bytes: limits::bytes(&model.config),
        together: 1,
        experts: ExpertForm::Fp8,
        ..Claim::default()
    };
    let _claim = model.workspace().reserve(claim);
    let in_bf16 = Pass::new(model, adapters, &samples, Experts::Bf16)?;
    let in_fp8 = Pass::new(model, adapters, &samples, Experts::Fp8)?;
    in_bf16.deviation(model, &in_fp8).map(Some)
}

/// Those with trained tokens, as many as there may be.
fn chosen<'a>(samples: &[&'a Sample]) -> Vec<&'a Sample> {
    let mut tokens = 0;
    let trained = samples.iter().copied().filter(|sample| sample.targets().next().is_some());
    let fits = |sample: &&Sample| {
        let is_first = tokens == 0;
        tokens += sample.ids.len();
        is_first || tokens <= MEASURED_TOKENS
    };
    trained.take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_are_taken_up_to_a_number_of_tokens_and_one_always() {
        let sample = |tokens: usize, weight: f32| Sample {
            row: tokens,
            ids: vec![1; tokens],
            weights: vec![weight; tokens],
            first_analysis: None,
        };
        let of = |samples: &[Sample]| {
            chosen(&samples.iter().collect::<Vec<_>>()).iter().map(|sample| sample.row).collect::<Vec<_>>()
        };
        assert_eq!(of(&[sample(20_000, 1.0), sample(3, 1.0)]), [20_000]);
        assert_eq!(of(&[sample(9000, 1.0), sample(7384, 1.0), sample(3, 1.0)]), [9000, 7384]);
        assert_eq!(of(&[sample(9000, 1.0), sample(7385, 1.0), sample(3, 1.0)]), [9000]);
        assert_eq!(
            of(&[sample(50, 0.0), sample(3, 1.0), sample(1, 1.0)]),
            [3],
            "what is not trained is not taken"
        );
        assert!(of(&[sample(50, 0.0)]).is_empty());
    }
}
