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
use crate::work::{Losses, Work};

impl Trainer<'_> {
    /// Adds the gradients of micro-batches that go through the layers together.
    pub(crate) fn accumulate_together(
        &self,
        works: &[&Work],
        gradients: &mut Option<Vec<Tensor<3>>>,
        losses: &mut Losses,
    ) -> Result<()> {
        let layers = self.model().config.num_hidden_layers;
        let mut sums = by_layer(gradients.take(), self.adapters(), layers);
        self.sweep(works, losses, |layer, _, new| {
            sums[layer] = Some(match sums[layer].take() {
                Some(old) if !old.is_empty() => accumulate(old, &new),
                _ => new,
            });
        })?;
        *gradients = Some(sums.into_iter().flatten().flatten().collect());
        Ok(())
    }

    /// The gradients of each of these micro-batches, which go through the layers together.
    pub(crate) fn each_together(&self, works: &[&Work], losses: &mut Losses) -> Result<Vec<Vec<Tensor<3>>>> {
        let layers = self.model().config.num_hidden_layers;
        let mut each = vec![vec![Vec::new(); layers]; works.len()];
        self.sweep(works, losses, |layer, batch, new| each[batch][layer] = new)?;
        Ok(each.into_iter().map(|by_layer| by_layer.into_iter().flatten().collect()).collect())
    }

    /// Takes micro-batches through the layers and back; `take` gets the gradients of a layer's adapters from each of
    /// them, layers from the last to the first, micro-batches in order.
    fn sweep(
        &self,
        works: &[&Work],
        losses: &mut Losses,
        mut take: impl FnMut(usize, usize, Vec<Tensor<3>>),
    ) -> Result<()> {
        let layers = self.model().config.num_hidden_layers;
        let batches: Vec<&Batch> = works.iter().map(|work| &work.batch).collect();
        let mut sweep = self.model().sweep(&batches, self.adapters())?;
        sweep.forward();
        for (batch, work) in works.iter().enumerate() {
            let stream = Tensor::from_inner(sweep.output(batch)).require_grad();
            let mut found = self.losses_back(self.model().last_norm(stream.clone()), work, losses);
            let grad = stream.grad_remove(&mut found).expect("every trained row comes from the stream");
            sweep.put_gradient(batch, grad);
        }
        // No gradient goes further down than to the first adapter.
        let first = self.adapters().pairs().keys().map(|site| site.layer).min().unwrap_or(layers);
        for layer in (first..layers).rev() {
            for batch in 0..works.len() {
                take(layer, batch, sweep.backward(layer, batch));
            }
        }
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
