//! How likely a model finds a text: the log-probability of each token given those before it.

use descant_kernels::read_floats;
use descant_model::{Batch, GptOss, Overlay};
use serde::Serialize;

use crate::error::{Error, Result};

/// The label of a token that is not counted, as in torch.
pub const IGNORED: i64 = -100;

/// A scored sequence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// Mean of the negative log-probabilities over the counted positions, in nats; `None` where none is left.
    pub loss: Option<f64>,
    /// Natural logarithm of the probability of `ids[i + 1]` given `ids[..=i]`: one less than there are ids.
    pub logprobs: Vec<f32>,
}

/// Scores one sequence. Position `i + 1` counts unless `labels[i + 1]` is [`IGNORED`]; without labels all count.
///
/// # Errors
/// No ids, an id outside the vocabulary, or labels of another length; the device failed.
pub fn score(model: &GptOss, overlay: &dyn Overlay, ids: &[u32], labels: Option<&[i64]>) -> Result<Score> {
    if let Some(labels) = labels
        && labels.len() != ids.len()
    {
        return Err(Error::Config(format!("{} ids but {} labels", ids.len(), labels.len())));
    }
    let batch = Batch::new([ids], model.config.vocab_size)?;
    if ids.len() == 1 {
        return Ok(Score { loss: None, logprobs: Vec::new() });
    }
    let hidden = model.hidden(&batch, overlay);
    let rows: Vec<usize> = (0..ids.len() - 1).collect();
    let losses = read_floats(model.token_losses(hidden, &rows, &ids[1..]))?;
    let counted: Vec<f64> = losses
        .iter()
        .enumerate()
        .filter(|(i, _)| labels.is_none_or(|labels| labels[i + 1] != IGNORED))
        .map(|(_, loss)| f64::from(*loss))
        .collect();
    let loss = (!counted.is_empty()).then(|| counted.iter().sum::<f64>() / counted.len() as f64);
    Ok(Score { loss, logprobs: losses.into_iter().map(|loss| -loss).collect() })
}

/// Log-probabilities of a sequence as [`score`] gives them, and how many tokens are more likely than the one at
/// `ranked`, plus one.
///
/// # Errors
/// As [`score`].
pub fn score_ranked(
    model: &GptOss,
    overlay: &dyn Overlay,
    ids: &[u32],
    ranked: Option<usize>,
) -> Result<(Vec<f32>, Option<u64>)> {
    let batch = Batch::new([ids], model.config.vocab_size)?;
    if ids.len() == 1 {
        return Ok((Vec::new(), None));
    }
    let hidden = model.hidden(&batch, overlay);
    let row =
        ranked.filter(|at| (1..ids.len()).contains(at)).map(|at| (at, hidden.clone().narrow(0, at - 1, 1)));
    let rows: Vec<usize> = (0..ids.len() - 1).collect();
    let losses = read_floats(model.token_losses(hidden, &rows, &ids[1..]))?;
    let rank = match row {
        None => None,
        Some((at, hidden)) => {
            let logits = read_floats(model.logits(hidden))?;
            let own = logits[ids[at] as usize];
            Some(1 + logits.iter().filter(|logit| **logit > own).count() as u64)
        }
    };
    Ok((losses.into_iter().map(|loss| -loss).collect(), rank))
}
