//! Micro-batches through the layers by hand: several of them through each layer before the next, where weights stream,
//! and one alone where each layer is one operator.
//!
//! Each sum over micro-batches is made as if one had come after the other, in the same order: the bits do not depend on
//! how many go together.

use burn::tensor::Tensor;
use descant_kernels::accumulate;
use descant_lora::LoraAdapters;
use descant_model::{Batch, SiteKind};

use crate::error::Result;
use crate::trainer::Trainer;
use crate::work::{Told, Work};

impl Trainer<'_> {
    /// Adds the gradients of micro-batches that go through the layers together.
    pub(crate) fn accumulate_together(
        &self,
        works: &[Work],
        gradients: &mut Option<Vec<Tensor<3>>>,
        told: &mut Told,
    ) -> Result<()> {
        let layers = self.model().config.num_hidden_layers;
        let batches: Vec<&Batch> = works.iter().map(|work| &work.batch).collect();
        let mut sweep = self.model().sweep(&batches, self.adapters())?;
        sweep.forward();
        for (batch, work) in works.iter().enumerate() {
            let stream = Tensor::from_inner(sweep.output(batch)).require_grad();
            let mut found = self.losses_back(self.model().last_norm(stream.clone()), work, told);
            let grad = stream.grad_remove(&mut found).expect("every trained row comes from the stream");
            sweep.put_gradient(batch, grad);
        }
        let mut sums = by_layer(gradients.take(), self.adapters(), layers);
        // No gradient goes further down than to the first adapter.
        let first = self.adapters().pairs().keys().map(|site| site.layer).min().unwrap_or(layers);
        for layer in (first..layers).rev() {
            for batch in 0..works.len() {
                let new = sweep.backward(layer, batch);
                sums[layer] = Some(match sums[layer].take() {
                    Some(old) if !old.is_empty() => accumulate(old, &new),
                    _ => new,
                });
            }
        }
        *gradients = Some(sums.into_iter().flatten().flatten().collect());
        Ok(())
    }
}

/// Sums of gradients layer by layer. The adapters' order goes layer by layer, and within one as sites do.
fn by_layer(
    sums: Option<Vec<Tensor<3>>>,
    adapters: &LoraAdapters,
    layers: usize,
) -> Vec<Option<Vec<Tensor<3>>>> {
    debug_assert!(SiteKind::ALL.is_sorted(), "sites of a layer come in one order everywhere");
    let Some(sums) = sums else { return vec![None; layers] };
    let mut sums = sums.into_iter();
    let tensors = |layer| 2 * adapters.pairs().keys().filter(|site| site.layer == layer).count();
    (0..layers).map(|layer| Some(sums.by_ref().take(tensors(layer)).collect())).collect()
}
