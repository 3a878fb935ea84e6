//! The layer in burn's graph: one node with the layer's input and up to seven pairs as parents.
//!
//! A site without a pair gets the same tiny constant for both of its tensors, so that the node has one form.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::cuda::{Call, Prepared, Ticket};
use super::{Angles, LayerPairs};
use crate::attention::Segments;
use crate::site::SiteKind;

/// Sites of a layer.
pub(super) const SITES: usize = 7;
/// Parents of the node: the input, and two tensors a site.
const PARENTS: usize = 1 + 2 * SITES;

/// The layer's output, `[tokens, hidden]`.
pub(super) fn decoder_layer(
    layer: &Arc<Prepared>,
    x: Tensor<2>,
    pairs: &LayerPairs,
    angles: &Angles,
    segments: &Segments,
) -> Tensor<2> {
    let call = Call::new(layer, pairs, angles, segments);
    let none = layer.placeholder();
    let [q, k, v, o, router, gate_up, down] = SiteKind::ALL.map(|kind| match &pairs[kind] {
        Some(pair) => (pair.a.clone().into_dispatch(), pair.b.clone().into_dispatch()),
        None => (none.clone().into_dispatch(), none.clone().into_dispatch()),
    });
    Tensor::from_dispatch(Dispatch::decoder_layer(
        x.into_dispatch(),
        q.0,
        q.1,
        k.0,
        k.1,
        v.0,
        v.1,
        o.0,
        o.1,
        router.0,
        router.1,
        gate_up.0,
        gate_up.1,
        down.0,
        down.1,
        call,
    ))
}

/// What the backward needs again.
#[derive(Debug, Clone)]
pub(super) struct Saved<B: Backend> {
    pub(super) x: FloatTensor<B>,
    /// A and B of each site.
    pub(super) pairs: [FloatTensor<B>; 2 * SITES],
    pub(super) call: Call,
    /// What the forward kept, if it is still there when the backward comes.
    pub(super) ticket: Ticket,
}

/// Forward and backward of a backend.
pub(super) trait LayerKernel: Backend {
    /// The result; with `keep`, also a ticket for what was kept for the backward.
    fn layer_forward(
        x: FloatTensor<Self>,
        pairs: &[FloatTensor<Self>; 2 * SITES],
        call: &Call,
        keep: bool,
    ) -> (FloatTensor<Self>, Ticket);

    /// The gradient of the input, and of A and B of each site that has a pair.
    fn layer_backward(
        saved: Saved<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, [Option<FloatTensor<Self>>; 2 * SITES]);
}

#[backend_extension(Cube, Autodiff)]
pub(super) trait LayerOp: Backend {
    fn decoder_layer(
        x: FloatTensor<Self>,
        qa: FloatTensor<Self>,
        qb: FloatTensor<Self>,
        ka: FloatTensor<Self>,
        kb: FloatTensor<Self>,
        va: FloatTensor<Self>,
        vb: FloatTensor<Self>,
        oa: FloatTensor<Self>,
        ob: FloatTensor<Self>,
        ra: FloatTensor<Self>,
        rb: FloatTensor<Self>,
        ga: FloatTensor<Self>,
        gb: FloatTensor<Self>,
        da: FloatTensor<Self>,
        db: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self>;
}

impl LayerOp for burn_cubecl::CubeBackend {
    fn decoder_layer(
        x: FloatTensor<Self>,
        qa: FloatTensor<Self>,
        qb: FloatTensor<Self>,
        ka: FloatTensor<Self>,
        kb: FloatTensor<Self>,
        va: FloatTensor<Self>,
        vb: FloatTensor<Self>,
        oa: FloatTensor<Self>,
        ob: FloatTensor<Self>,
        ra: FloatTensor<Self>,
        rb: FloatTensor<Self>,
        ga: FloatTensor<Self>,
        gb: FloatTensor<Self>,
        da: FloatTensor<Self>,
        db: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self> {
        let pairs = [qa, qb, ka, kb, va, vb, oa, ob, ra, rb, ga, gb, da, db];
        Self::layer_forward(x, &pairs, &call, false).0
    }
}

#[derive(Debug)]
struct LayerBackward;

impl<B: LayerKernel> Backward<B, PARENTS> for LayerBackward {
    type State = Saved<B>;

    fn backward(
        self,
        ops: Ops<Self::State, PARENTS>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&ops.node);
        let (dx, gradients) = B::layer_backward(ops.state, grad);
        let gradients = std::iter::once(Some(dx)).chain(gradients);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: LayerKernel, C: CheckpointStrategy> LayerOp for Autodiff<B, C> {
    fn decoder_layer(
        x: FloatTensor<Self>,
        qa: FloatTensor<Self>,
        qb: FloatTensor<Self>,
        ka: FloatTensor<Self>,
        kb: FloatTensor<Self>,
        va: FloatTensor<Self>,
        vb: FloatTensor<Self>,
        oa: FloatTensor<Self>,
        ob: FloatTensor<Self>,
        ra: FloatTensor<Self>,
        rb: FloatTensor<Self>,
        ga: FloatTensor<Self>,
        gb: FloatTensor<Self>,
        da: FloatTensor<Self>,
        db: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self> {
        let pairs = [qa, qb, ka, kb, va, vb, oa, ob, ra, rb, ga, gb, da, db];
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = pairs.each_ref().map(<FloatTensor<Self>>::node);
        let nodes = [x.node(), a, b, c, d, e, f, g, h, i, j, k, l, m, n];
        let prep = LayerBackward.prepare::<C>(nodes).compute_bound();
        let (x, pairs) = (x.into_primitive(), pairs.map(<FloatTensor<Self>>::into_primitive));
        match prep.stateful() {
            OpsKind::Tracked(prep) => {
                let (y, ticket) = B::layer_forward(x.clone(), &pairs, &call, true);
                prep.finish(Saved { x, pairs, call, ticket }, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::layer_forward(x, &pairs, &call, false).0),
        }
    }
}
