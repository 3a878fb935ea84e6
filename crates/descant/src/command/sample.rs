//! What the trainer learns from, made of a prepared example.

use descant_harmony::prepare::Example;
use descant_train::Sample;

/// Tokens and weights; what else is known of an example, the loop has no use for.
pub(super) fn sample(example: Example) -> Sample {
    Sample {
        row: example.row as usize,
        ids: example.ids,
        weights: example.mask.weights,
        first_analysis: example.first_reasoning,
    }
}
