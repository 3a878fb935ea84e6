//! How far a model's choice of the next token is from another's, row by row: hidden states that are nearly the same give
//! nearly the same probabilities.
//!
//! Logits are f32, because the difference is smaller than what bf16 leaves of one.

use burn::tensor::Tensor;

use super::{LogitsRoom, reference};
use crate::op::linear::{FrozenWeight, Groups, linear};
use crate::{DeviceError, read_all};

/// Rows that go through the vocabulary at once where no kernel compares them.
const ROWS: usize = 64;

/// The divergence of the probabilities of `other` from those of `one`, of each row in nats: how many more it takes to
/// say what `one` says by what `other` expects (Kullback and Leibler). What is not a number gives none.
///
/// On a card the logits of some rows exist at once, those that `room` has bytes for.
///
/// # Shapes
/// - `one` and `other` `[rows, features]`, after the final norm, in no graph
/// - `head` `[vocabulary, features]`, frozen
///
/// # Errors
/// The device failed.
///
/// # Panics
/// If the shapes differ.
pub fn divergences(
    one: &Tensor<2>,
    other: &Tensor<2>,
    head: &Tensor<2>,
    room: &LogitsRoom,
) -> Result<Vec<f32>, DeviceError> {
    assert_eq!(one.dims(), other.dims(), "rows are compared one by one");
    #[cfg(feature = "cuda")]
    if crate::is_cuda(&one.device()) && super::cuda_divergence::has_form([one, other, head]) {
        return Ok(super::cuda_divergence::divergences([one, other, head], room)?);
    }
    let _ = room;
    let ([rows, _], [vocabulary, _]) = (one.dims(), head.dims());
    let head = FrozenWeight::Dense(head.clone().unsqueeze());
    let mut found = Vec::with_capacity(rows);
    for start in (0..rows).step_by(ROWS) {
        let logits = [one, other].map(|hidden| {
            let some = hidden.clone().narrow(0, start, ROWS.min(rows - start));
            linear(some, &head, None, &Groups::One)
        });
        let logits = read_all(logits.to_vec())?;
        let [p, q] = [0, 1].map(|of: usize| logits[of].chunks_exact(vocabulary));
        found.extend(p.zip(q).map(|(p, q)| reference::divergence(p, q) as f32));
    }
    Ok(found)
}
