//! A micro-batch forward and backward in one form of the experts' products, up to where an optimizer would come.

use burn::tensor::Tensor;
use descant_kernels::{Claim, from_host, read_all, read_floats, select_rows, weighted_sum};
use descant_lora::LoraAdapters;
use descant_model::{GptOss, Site};

use super::COMPARED_TOKENS;
use super::deviation::{Deviation, Gradients};
use crate::config::Experts;
use crate::error::Result;
use crate::sample::Sample;
use crate::trainer::experts_in_bf16;
use crate::work::{Totals, Work};

/// What a forward and a backward give.
#[derive(Debug)]
pub struct Pass {
    conversations: usize,
    tokens: usize,
    trained_tokens: usize,
    /// Mean over the trained tokens, in nats.
    loss: f64,
    /// Last hidden states of some of them, as they lie on the device.
    hidden: Tensor<2>,
    /// Of all tensors of the adapter, from the last layer to the first.
    gradients: Gradients,
}

impl Pass {
    /// Takes samples through a model and its adapter, and back, as a step of a training does. In bf16 this is what a step
    /// in bf16 gives even where memory is laid out for fp8.
    ///
    /// # Errors
    /// There are no such kernels for the model's device or weights; a sample is malformed, or none is trained; the device
    /// failed.
    pub fn new(
        model: &GptOss,
        adapters: &LoraAdapters,
        samples: &[&Sample],
        experts: Experts,
    ) -> Result<Self> {
        samples.iter().try_for_each(|sample| sample.check())?;
        experts_in_bf16(model, experts)?;
        let claim = Claim { together: 1, experts: experts.form(), ..Claim::default() };
        let _claim = model.workspace().reserve(claim);
        let weight = samples.iter().flat_map(|sample| sample.targets()).map(|t| f64::from(t.weight)).sum();
        let work = Work::new(samples, weight, model.config.vocab_size)?;
        let sweep = model.sweep(&[&work.batch], adapters)?;
        let mut sweep = if experts == Experts::Bf16 { sweep.in_bf16() } else { sweep };
        sweep.forward();
        let stream = Tensor::from_inner(sweep.output(0)).require_grad();
        let hidden = model.last_norm(stream.clone());
        let compared = select_rows(hidden.clone().inner(), &evenly(&work.rows, COMPARED_TOKENS));
        let losses = model.token_losses(hidden, &work.rows, &work.ids);
        let told = losses.clone().inner();
        let shares = from_host(work.shares.clone(), [work.shares.len()], model.device());
        let mut found = weighted_sum(losses, shares).backward();
        sweep.put_gradient(0, stream.grad_remove(&mut found).expect("every trained row is of the stream"));
        let (layers, sites) = (model.config.num_hidden_layers, adapters.pairs());
        let first = sites.keys().map(|site| site.layer).min().unwrap_or(layers);
        let mut gradients = Gradients::new();
        for layer in (first..layers).rev() {
            let of_layer = sites.keys().filter(|site| site.layer == layer);
            let names = of_layer.flat_map(|site: &Site| ["A", "B"].map(|factor| format!("{site} {factor}")));
            // To the host at once: the device holds those of one layer.
            gradients.extend(names.zip(read_all(sweep.backward(layer, 0))?));
        }
        let (tokens, trained_tokens) = (work.batch.ids().len(), work.rows.len());
        let losses = read_floats(told)?;
        let loss = Totals::new(tokens, &[work], &[losses]).loss / weight;
        Ok(Self { conversations: samples.len(), tokens, trained_tokens, loss, hidden: compared, gradients })
    }

    /// How far another pass over as many tokens is from this one.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// If the passes are of other numbers of tokens, or of other adapters.
    pub fn deviation(&self, model: &GptOss, other: &Self) -> Result<Deviation> {
        let divergences = model.divergences(&self.hidden, &other.hidden)?;
        let compared_tokens = divergences.len();
        let sum: f64 = divergences.into_iter().map(f64::from).sum();
        let compared = self.gradients.compared(&other.gradients);
        Ok(Deviation {
            conversations: self.conversations,
            tokens: self.tokens,
            trained_tokens: self.trained_tokens,
            compared_tokens,
            loss: self.loss,
            loss_fp8: other.loss,
            divergence: sum / compared_tokens as f64,
            gradients: compared.count,
            zero_gradients: compared.zero,
            cosine: compared.cosine,
            norm: compared.norm,
        })
    }

    /// Whether another pass gave the same bits.
    ///
    /// # Errors
    /// The device failed.
    pub fn is_same(&self, other: &Self) -> Result<bool> {
        let bits = |pass: &Self| Ok::<_, crate::Error>(read_floats(pass.hidden.clone())?);
        let is_same = self.loss.to_bits() == other.loss.to_bits() && self.gradients == other.gradients;
        Ok(is_same && bits(self)? == bits(other)?)
    }
}

/// At most so many of these, evenly spread.
fn evenly(rows: &[usize], most: usize) -> Vec<usize> {
    let count = rows.len().min(most);
    (0..count).map(|at| rows[at * rows.len() / count]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_evenly_spread_and_all_of_them_where_there_are_few() {
        let rows: Vec<usize> = (0..10).map(|row| 3 * row).collect();
        assert_eq!(evenly(&rows, 20), rows);
        assert_eq!(evenly(&rows, 5), [0, 6, 12, 18, 24]);
        assert_eq!(evenly(&rows, 3), [0, 9, 18]);
        assert!(evenly(&[], 3).is_empty());
    }
}
