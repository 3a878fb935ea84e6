//! Tensors in pinned host memory, where a card reads them.

use std::sync::Arc;

#[cfg(feature = "cuda")]
use crate::cuda::HostMemory;

/// Without a card there is nothing of this kind.
#[cfg(not(feature = "cuda"))]
#[derive(Debug)]
pub(super) enum HostMemory {}
/// Bytes of a tensor in pinned host memory, where a card reads them; cheap to clone.
#[derive(Debug, Clone)]
pub struct HostBytes(pub(super) Arc<HostMemory>);

#[cfg(feature = "cuda")]
impl HostBytes {
    pub(crate) fn new(memory: HostMemory) -> Self {
        Self(Arc::new(memory))
    }
}

impl HostBytes {
    pub(super) fn len(&self) -> usize {
        #[cfg(feature = "cuda")]
        return self.0.bytes().len();
        #[cfg(not(feature = "cuda"))]
        match *self.0 {}
    }
}

/// Packed matrices of all experts of a layer on the host.
#[derive(Debug, Clone)]
pub struct HostExperts {
    /// As in [`FrozenWeight::Mxfp4`](crate::FrozenWeight::Mxfp4).
    pub blocks: HostBytes,
    /// As in [`FrozenWeight::Mxfp4`](crate::FrozenWeight::Mxfp4).
    pub scales: HostBytes,
    /// Matrices, output features, input features.
    pub shape: [usize; 3],
}

/// Which of a layer's products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "experts stream to a card alone"))]
pub(crate) enum Half {
    GateUp,
    Down,
}
