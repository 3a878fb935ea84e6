//! A layer for several batches one after the other, outside of burn's graph: the forward keeps nothing, and the backward
//! is asked for by hand, batch by batch, with the gradient of the layer's output.
//!
//! The operations are those of the graph's node, in the same order, so that the bits are the same. Weights that stream
//! cross the bus once for all batches of a layer.

use std::sync::Arc;

use burn::tensor::Tensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::call::{Call, Prepared, Ticket, Turn};
use super::node::{LayerKernel as _, Saved};
use super::operands::{Factors, SiteFactors};
use super::types::{Angles, LayerPairs, PairGradients};
use crate::cuda::{primitive, tensor};
use crate::op::attention::Segments;
use crate::site::PerSite;

/// The layer's output.
pub(super) fn layer_forward(
    layer: &Arc<Prepared>,
    x: Tensor<2>,
    pairs: &LayerPairs,
    (angles, segments): (&Angles, &Segments),
    again: bool,
) -> Tensor<2> {
    let call = Call::new(layer, pairs, angles, segments, Turn::Together { again });
    tensor(CubeBackend::layer_forward(on_card(x), &factors(pairs), &call, false).0)
}

/// The gradients of the layer's input and of the pairs.
pub(super) fn layer_backward(
    layer: &Arc<Prepared>,
    x: Tensor<2>,
    pairs: &LayerPairs,
    (angles, segments): (&Angles, &Segments),
    grad: Tensor<2>,
    again: bool,
) -> (Tensor<2>, PerSite<Option<PairGradients>>) {
    let call = Call::new(layer, pairs, angles, segments, Turn::Together { again });
    let saved = Saved::<CubeBackend> { x: on_card(x), pairs: factors(pairs), call, ticket: Ticket(None) };
    let (dx, of_pairs) = CubeBackend::layer_backward(saved, on_card(grad));
    let gradients = of_pairs.map(|pair| {
        let Factors { a, b } = pair.clone()?;
        Some(PairGradients { a: tensor(a), b: tensor(b) })
    });
    (tensor(dx), gradients)
}

fn on_card<const D: usize>(tensor: Tensor<D>) -> CubeTensor {
    primitive(tensor).expect("what goes through a layer lies where the layer lies, outside of a graph")
}

fn factors(pairs: &LayerPairs) -> SiteFactors<CubeTensor> {
    pairs.map(|pair| {
        let pair = pair.as_ref()?;
        Some(Factors { a: on_card(pair.a.clone()), b: on_card(pair.b.clone()) })
    })
}
