//! What may be added to the frozen model, and where.

use burn::tensor::Tensor;
use descant_kernels::{Groups, LayerPairs, Routing};

use crate::site::Site;

/// Something that changes the products at some sites: an adapter, or a test's probe.
pub trait Overlay {
    /// What to add to the product at `site`, or `None` to leave it.
    ///
    /// # Shapes
    /// `x` `[rows, d_in]`, the result `[rows, d_out]` (see [`Config::site_dims`](crate::Config::site_dims)). At expert
    /// sites the rows are (token, slot) pairs sorted by expert, and `groups` says which are whose.
    fn delta(&self, site: Site, x: &Tensor<2>, groups: &Groups) -> Option<Tensor<2>>;

    /// All that this overlay adds in a layer, if that is low-rank pairs and nothing else, and [`routed`](Self::routed)
    /// need not be called: then a device may compute the whole layer as one operator. `None` is always right.
    fn pairs(&self, layer: usize) -> Option<LayerPairs> {
        let _ = layer;
        None
    }

    /// Told where each layer sends its tokens.
    fn routed(&self, layer: usize, logits: &Tensor<2>, routing: &Routing) {
        let _ = (layer, logits, routing);
    }
}

/// The model as published.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bare;

impl Overlay for Bare {
    fn delta(&self, _site: Site, _x: &Tensor<2>, _groups: &Groups) -> Option<Tensor<2>> {
        None
    }

    fn pairs(&self, _layer: usize) -> Option<LayerPairs> {
        Some(LayerPairs::default())
    }
}
