//! Forward and backward of a layer on an NVIDIA card: memory is leased, work is queued, errors are kept.

use burn::backend::TensorMetadata as _;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::call::{Call, Ticket, buffers};
use super::node::{LayerGradients, LayerKernel, Saved};
use super::operands::{Factors, Gradients, SiteFactors, Source};
use crate::cuda::{contiguous, empty};
use crate::memory::arena::Lease;
use crate::memory::table::Phase;

impl LayerKernel for CubeBackend {
    fn layer_forward(
        x: CubeTensor,
        pairs: &SiteFactors<CubeTensor>,
        call: &Call,
        keep: bool,
    ) -> (CubeTensor, Ticket) {
        let gpu = &call.layer.gpu;
        let (x, pairs) = (contiguous(x), compact(pairs));
        let tokens = x.shape()[0];
        let out = call.stream(&x);
        let mut turn = call.layer.workspace.turn();
        let lease =
            call.check().and_then(|()| turn.lease(gpu, &call.need(tokens), call.layer.place.index, keep));
        match lease {
            Err(error) => {
                gpu.fail(error);
                (out, Ticket(None))
            }
            Ok(lease) => {
                let (from, to) = (Source::Buffer(x.handle), Source::Buffer(out.handle.clone()));
                let operands = call.operands(&pairs, from, to, None);
                call.enqueue(&operands, lease.clone(), tokens, Phase::ForwardAttention);
                (out, Ticket(keep.then_some(lease)))
            }
        }
    }

    fn layer_backward(saved: Saved<Self>, grad: CubeTensor) -> LayerGradients<Self> {
        let Saved { x, pairs, call, ticket } = saved;
        let gpu = &call.layer.gpu;
        let (x, grad, pairs) = (contiguous(x), contiguous(grad), compact(&pairs));
        let tokens = x.shape()[0];
        let dx = call.stream(&x);
        let mut like = |tensor: &CubeTensor| empty(tensor.shape(), DType::F32, &x.device);
        let gradients = pairs.map(|pair| pair.as_ref().map(|pair| pair.map(&mut like)));
        let mut turn = call.layer.workspace.turn();
        // What was kept may have been overwritten by another forward pass since; then everything is run again.
        let kept = ticket.0.filter(Lease::is_current);
        let lease =
            kept.map_or_else(|| turn.lease(gpu, &call.need(tokens), call.layer.place.index, false), Ok);
        match lease {
            Err(error) => gpu.fail(error),
            Ok(lease) => {
                let backward = Gradients { grad: Source::Buffer(grad.handle), pairs: buffers(&gradients) };
                let (from, to) = (Source::Buffer(x.handle), Source::Buffer(dx.handle.clone()));
                let operands = call.operands(&pairs, from, to, Some(backward));
                call.enqueue(&operands, lease, tokens, Phase::BackwardAttention);
            }
        }
        (dx, gradients)
    }
}

/// The pairs' tensors without gaps: those that the optimizer wrote are so, those that came from the host are copied.
pub(super) fn compact(pairs: &SiteFactors<CubeTensor>) -> SiteFactors<CubeTensor> {
    let mut plain = |tensor: &CubeTensor| contiguous(tensor.clone());
    pairs.map(|pair| pair.as_ref().map(|pair: &Factors<_>| pair.map(&mut plain)))
}
