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
