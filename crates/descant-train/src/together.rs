//! Several micro-batches through each layer before the next one, forward and backward, without a graph over all layers.
//!
//! Where weights stream from the host, a layer crosses the bus twice a step instead of twice a micro-batch. What is
//! kept is the input of every layer for every micro-batch; the rest is computed again in the backward, layer by layer.
//! Each product, and each sum over micro-batches, is that of one micro-batch after the other: the bits are the same.

use burn::tensor::Tensor;
use descant_kernels::accumulate;
use descant_lora::LoraAdapters;
use descant_model::{Lane, SiteKind};

use crate::trainer::Trainer;
use crate::work::{Told, Work, gradient_of};

impl Trainer<'_> {
    /// Adds the gradients of several micro-batches.
    pub(crate) fn accumulate_together(
        &self,
        works: &[Work],
        gradients: &mut Option<Vec<Tensor<3>>>,
        told: &mut Told,
    ) {
        let frozen = self.adapters().frozen();
        let layers = self.model().config.num_hidden_layers;
        let mut sums = by_layer(gradients.take(), self.adapters(), layers);
        let (mut streams, lanes): (Vec<Tensor<2>>, Vec<Lane>) =
            works.iter().map(|work| self.model().enter(&work.batch)).unzip();
        let last = works.len() - 1;
        let mut inputs = Vec::with_capacity(layers);
        for layer in 0..layers {
            let outputs = lanes.iter().enumerate().map(|(at, lane)| {
                self.model().through_layer(layer, streams[at].clone(), lane, &frozen, at < last)
            });
            let outputs = outputs.collect();
            inputs.push(std::mem::replace(&mut streams, outputs));
        }
        let mut grads: Vec<Tensor<2>> = Vec::with_capacity(works.len());
        for (stream, work) in streams.into_iter().zip(works) {
            let stream = Tensor::from_inner(stream).require_grad();
            let mut found = self.losses_back(self.model().last_norm(stream.clone()), work, told);
            grads.push(stream.grad_remove(&mut found).expect("every trained row comes from the stream"));
        }
        // No gradient goes further down than to the first adapter.
        let first = self.adapters().pairs().keys().map(|site| site.layer).min().unwrap_or(layers);
        for layer in (first..layers).rev() {
            let streams = inputs.pop().expect("an input for each layer");
            for (at, (stream, lane)) in streams.into_iter().zip(&lanes).enumerate() {
                let (grad, new) = self.layer_back(layer, stream, lane, &frozen, &grads[at], at < last);
                grads[at] = grad;
                sums[layer] = Some(match sums[layer].take() {
                    Some(old) if !old.is_empty() => accumulate(old, &new),
                    _ => new,
                });
            }
        }
        *gradients = Some(sums.into_iter().flatten().flatten().collect());
    }

    /// The gradient of a layer's input, and those of the adapters in it, A then B, site by site.
    fn layer_back(
        &self,
        layer: usize,
        stream: Tensor<2>,
        lane: &Lane,
        frozen: &LoraAdapters,
        grad: &Tensor<2>,
        again: bool,
    ) -> (Tensor<2>, Vec<Tensor<3>>) {
        if let Some((grad, pairs)) =
            self.model().back_through_layer(layer, &stream, lane, frozen, grad, again)
        {
            return (
                grad,
                pairs.iter().filter_map(|(_, pair)| pair.clone()).flat_map(|p| [p.a, p.b]).collect(),
            );
        }
        // The product with the gradient has it as its own gradient, to the bit.
        let stream = Tensor::from_inner(stream).require_grad();
        let output = self.model().through_layer(layer, stream.clone(), lane, self.adapters(), again);
        let mut found = (output * Tensor::from_inner(grad.clone())).sum().backward();
        let new = of_layer(self.adapters(), layer).map(|tensor| gradient_of(tensor, &mut found)).collect();
        (stream.grad_remove(&mut found).expect("a layer passes its input on"), new)
    }
}

/// The trainable tensors of a layer, in their order.
fn of_layer(adapters: &LoraAdapters, layer: usize) -> impl Iterator<Item = &Tensor<3>> {
    let pairs = adapters.pairs().iter().filter(move |(site, _)| site.layer == layer);
    pairs.flat_map(|(_, pair)| [&pair.a, &pair.b])
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
    (0..layers).map(|layer| Some(sums.by_ref().take(of_layer(adapters, layer).count()).collect())).collect()
}
