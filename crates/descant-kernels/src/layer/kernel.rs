//! Forward and backward of a layer on an NVIDIA card: memory is leased, work is queued, errors are kept.

use burn::backend::TensorMetadata as _;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::call::{Call, Ticket, buffers};
use super::node::{LayerGradients, LayerKernel, Saved};
use super::operands::{Gradients, SiteFactors, Source, map_factors};
use crate::cuda::{contiguous, empty};
use crate::memory::arena::Lease;
use crate::memory::table::Phase;

impl Call {
    /// From the layer's input to its output; with `keep` also what the backward need not compute again.
    pub(super) fn forward(
        &self,
        pairs: &SiteFactors<CubeTensor>,
        tokens: usize,
        from: Source,
        to: Source,
        keep: bool,
    ) -> Ticket {
        let (gpu, index) = (&self.layer.gpu, self.layer.place.index);
        let mut turn = self.layer.workspace.turn();
        match self.check().and_then(|()| turn.lease(gpu, &self.need(tokens), index, keep)) {
            Err(error) => {
                gpu.fail(error);
                Ticket(None)
            }
            Ok(lease) => {
                let operands = self.operands(pairs, from, to, None);
                self.enqueue(&operands, lease.clone(), tokens, Phase::ForwardAttention);
                Ticket(keep.then_some(lease))
            }
        }
    }

    /// From the gradient of the output to that of the input, `to`, and those of the pairs; `from` is the input.
    pub(super) fn backward(
        &self,
        pairs: &SiteFactors<CubeTensor>,
        tokens: usize,
        from: Source,
        grad: Source,
        to: Source,
        ticket: Ticket,
    ) -> SiteFactors<CubeTensor> {
        let (gpu, index) = (&self.layer.gpu, self.layer.place.index);
        let mut like = |tensor: &CubeTensor| empty(tensor.shape(), DType::F32, &tensor.device);
        let gradients = pairs.map(|pair| pair.as_ref().map(|pair| pair.map(&mut like)));
        let mut turn = self.layer.workspace.turn();
        // What was kept may have been overwritten by another forward pass since; then everything is run again.
        let kept = ticket.0.filter(Lease::is_current);
        match kept.map_or_else(|| turn.lease(gpu, &self.need(tokens), index, false), Ok) {
            Err(error) => gpu.fail(error),
            Ok(lease) => {
                let backward = Gradients { grad, pairs: buffers(&gradients) };
                let operands = self.operands(pairs, from, to, Some(backward));
                self.enqueue(&operands, lease, tokens, Phase::BackwardAttention);
            }
        }
        gradients
    }
}

impl LayerKernel for CubeBackend {
    fn layer_forward(
        x: CubeTensor,
        pairs: &SiteFactors<CubeTensor>,
        call: &Call,
        keep: bool,
    ) -> (CubeTensor, Ticket) {
        let (x, pairs) = (contiguous(x), compact(pairs));
        let (tokens, out) = (x.shape()[0], call.stream(&x));
        let to = Source::Buffer(out.handle.clone());
        let ticket = call.forward(&pairs, tokens, Source::Buffer(x.handle), to, keep);
        (out, ticket)
    }

    fn layer_backward(saved: Saved<Self>, grad: CubeTensor) -> LayerGradients<Self> {
        let Saved { x, pairs, call, ticket } = saved;
        let (x, grad, pairs) = (contiguous(x), contiguous(grad), compact(&pairs));
        let (tokens, dx) = (x.shape()[0], call.stream(&x));
        let (from, grad) = (Source::Buffer(x.handle), Source::Buffer(grad.handle));
        let gradients = call.backward(&pairs, tokens, from, grad, Source::Buffer(dx.handle.clone()), ticket);
        (dx, gradients)
    }
}

/// The pairs' tensors without gaps: those that the optimizer wrote are so, those that came from the host are copied.
pub(super) fn compact(pairs: &SiteFactors<CubeTensor>) -> SiteFactors<CubeTensor> {
    map_factors(pairs, &mut |tensor| contiguous(tensor.clone()))
}
