//! Tensors in host memory for a card, pinned where the system lets us.

use std::sync::Arc;

use descant_quant::{Packing, mxfp4, nf4};

#[cfg(feature = "cuda")]
use crate::cuda::HostStore;
use crate::device::only_on_a_card;

/// Without a card there is nothing of this kind.
#[cfg(not(feature = "cuda"))]
#[derive(Debug)]
pub(super) enum HostStore {}
/// Bytes of a tensor in host memory, where a card reads or copies them; cheap to clone.
#[derive(Debug, Clone)]
pub struct HostBytes(pub(super) Arc<HostStore>);

#[cfg(feature = "cuda")]
impl HostBytes {
    pub(crate) fn new(store: HostStore) -> Self {
        Self(Arc::new(store))
    }

    /// Where the card reads them in place, if it can.
    pub(super) fn address(&self) -> Option<u64> {
        self.0.address()
    }
}

impl HostBytes {
    pub(super) fn len(&self) -> usize {
        only_on_a_card!(*self.0, (), self.0.bytes().len())
    }
}

/// Packed matrices of all experts of a layer on the host.
#[derive(Debug, Clone)]
pub struct HostExperts {
    /// How.
    pub packing: Packing,
    /// The tensors of [`FrozenWeight`](crate::FrozenWeight)'s form for it, in its order.
    pub pieces: Vec<HostBytes>,
    /// Matrices, output features, input features.
    pub shape: [usize; 3],
}

impl HostExperts {
    /// Whether the pieces are those of the packing and the shape, and there is a kernel for both.
    pub(super) fn is_whole(&self) -> bool {
        let [count, outputs, inputs] = self.shape;
        let numbers = count * outputs * inputs;
        let (block, expected) = match self.packing {
            Packing::Plain => return false,
            Packing::Mxfp4 => (mxfp4::BLOCK, vec![numbers / 2, numbers / mxfp4::BLOCK]),
            Packing::Nf4 => {
                let tables = nf4::Stack::table_len(count, outputs * inputs / nf4::BLOCK);
                (nf4::BLOCK, vec![numbers / 2, numbers / nf4::BLOCK, tables * size_of::<f32>()])
            }
        };
        let lengths: Vec<usize> = self.pieces.iter().map(HostBytes::len).collect();
        lengths == expected && inputs.is_multiple_of(block) && outputs.is_multiple_of(mxfp4::BLOCK)
    }
}

/// Which of a layer's products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "experts stream to a card alone"))]
pub(crate) enum Half {
    GateUp,
    Down,
}
