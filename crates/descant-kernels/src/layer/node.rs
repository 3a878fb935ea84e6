//! The layer in burn's graph: one node, whose parents are the layer's input and both factors of each pair.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, BackendTensor, Dispatch, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind,
    ExtensionType, backend_extension,
};
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;

use super::call::{Call, Ticket, Turn};
use super::operands::{Factors, SiteFactors};
use super::prepared::Prepared;
use super::types::{Angles, LayerPairs};
use crate::op::attention::Segments;
use crate::op::graph::node;
use crate::site::SiteKind;

/// Parents of the node: the input, then two factors a site. A site without a pair has parents that nothing tracks.
const PARENTS: usize = 1 + 2 * SiteKind::ALL.len();

/// The layer's output, `[tokens, hidden]`; which experts it chose goes to `chosen`.
pub(super) fn decoder_layer(
    layer: &Arc<Prepared>,
    x: Tensor<2>,
    pairs: &LayerPairs,
    angles: &Angles,
    segments: &Segments,
    chosen: Option<CubeTensor>,
) -> Tensor<2> {
    let call = Call::new(layer, pairs, angles, segments, Turn::Tensors).noting(chosen);
    let pairs = Pairs(pairs.map(|pair| {
        let pair = pair.as_ref()?;
        Some(Factors { a: pair.a.clone().into_dispatch(), b: pair.b.clone().into_dispatch() })
    }));
    Tensor::from_dispatch(Dispatch::decoder_layer(x.into_dispatch(), pairs, call))
}

/// The pairs' factors on one backend.
#[derive(Debug, Clone)]
pub(super) struct Pairs<B: Backend>(pub(super) SiteFactors<FloatTensor<B>>);

impl Pairs<Dispatch> {
    fn tensors(&self) -> impl Iterator<Item = &DispatchTensor> {
        self.0.iter().filter_map(|(_, pair)| pair.as_ref()).flat_map(|pair| [&pair.a, &pair.b])
    }
}

impl<B: Backend> ExtensionType<B> for Pairs<B> {
    type Target = Pairs<Dispatch>;

    fn map_to_dispatch<F>(self, map_kind: F, autodiff: DispatchAutodiffContext) -> Self::Target
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        let mut wrap = |tensor: &FloatTensor<B>| DispatchTensor {
            kind: map_kind(BackendTensor::Float(tensor.clone())),
            autodiff,
        };
        Pairs(self.0.map(|pair| pair.as_ref().map(|pair| pair.map(&mut wrap))))
    }

    fn map_from_dispatch<F>(target: Self::Target, unwrap_kind: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        let mut unwrap = |tensor: &DispatchTensor| unwrap_kind(tensor.clone()).float();
        Self(target.0.map(|pair| pair.as_ref().map(|pair| pair.map(&mut unwrap))))
    }

    fn routing_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        target.tensors().next()
    }

    fn routing_float_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        target.tensors().next()
    }

    fn autodiff_context(target: &Self::Target) -> DispatchAutodiffContext {
        target
            .tensors()
            .fold(DispatchAutodiffContext::Disabled, |context, tensor| context.merge(tensor.autodiff))
    }
}

/// What the backward needs again.
#[derive(Debug, Clone)]
pub(super) struct Saved<B: Backend> {
    pub(super) x: FloatTensor<B>,
    pub(super) pairs: SiteFactors<FloatTensor<B>>,
    pub(super) call: Call,
    /// What the forward kept, if it is still there when the backward comes.
    pub(super) ticket: Ticket,
}

/// The gradients of a call: of its input, and of each pair.
pub(super) type LayerGradients<B> = (FloatTensor<B>, SiteFactors<FloatTensor<B>>);

/// Forward and backward of a backend.
pub(super) trait LayerKernel: Backend {
    /// The result; with `keep`, also a ticket for what was kept for the backward.
    fn layer_forward(
        x: FloatTensor<Self>,
        pairs: &SiteFactors<FloatTensor<Self>>,
        call: &Call,
        keep: bool,
    ) -> (FloatTensor<Self>, Ticket);

    /// The gradient of the input, and of both factors of each pair.
    fn layer_backward(saved: Saved<Self>, grad: FloatTensor<Self>) -> LayerGradients<Self>;
}

#[backend_extension(Cube, Autodiff)]
pub(super) trait LayerOp: Backend {
    fn decoder_layer(
        x: FloatTensor<Self>,
        #[extension_type] pairs: Pairs<Self>,
        call: Call,
    ) -> FloatTensor<Self>;
}

impl<B: LayerKernel> LayerOp for B {
    fn decoder_layer(x: FloatTensor<Self>, pairs: Pairs<Self>, call: Call) -> FloatTensor<Self> {
        Self::layer_forward(x, &pairs.0, &call, false).0
    }
}

impl<B: LayerKernel, C: CheckpointStrategy> LayerOp for Autodiff<B, C> {
    fn decoder_layer(x: FloatTensor<Self>, pairs: Pairs<Self>, call: Call) -> FloatTensor<Self> {
        let untracked = <FloatTensor<Self>>::new(x.primitive().clone());
        let factors = pairs
            .0
            .iter()
            .flat_map(|(_, pair)| pair.as_ref().map_or([&untracked, &untracked], |pair| [&pair.a, &pair.b]));
        let parents: Vec<_> = std::iter::once(&x).chain(factors).collect();
        let parents: [_; PARENTS] = parents.try_into().expect("one and two a site");
        // In the order of the parents.
        let back = |saved, grad| {
            let (dx, pairs) = B::layer_backward(saved, grad);
            let factors = pairs.iter().flat_map(|(_, pair)| {
                pair.as_ref().map_or([None, None], |pair| [Some(pair.a.clone()), Some(pair.b.clone())])
            });
            std::iter::once(Some(dx)).chain(factors).collect::<Vec<_>>()
        };
        node::<B, C, _, _, _>(parents, back, |keep| {
            let x = x.primitive().clone();
            let mut plain = |tensor: &FloatTensor<Self>| tensor.primitive().clone();
            let pairs: SiteFactors<FloatTensor<B>> =
                pairs.0.map(|pair| pair.as_ref().map(|pair| pair.map(&mut plain)));
            let (y, ticket) = B::layer_forward(x.clone(), &pairs, &call, keep);
            (y, Saved { x, pairs, call, ticket })
        })
    }
}
