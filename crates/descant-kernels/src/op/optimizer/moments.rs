//! What AdamW remembers of a tensor.

use burn::tensor::{DType, Int, Tensor};

use super::blocks::{BLOCK, ZERO_FIRST};
use crate::laid::{bytes, zeros};

/// How moments are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MomentFormat {
    /// As f32.
    #[default]
    Float,
    /// As 8-bit codes in blocks of 256 elements, each block with its largest magnitude.
    Blocks,
}

impl MomentFormat {
    /// Scales of a moment of so many elements.
    pub fn scales(self, elements: usize) -> usize {
        match self {
            Self::Float => 0,
            Self::Blocks => elements.div_ceil(BLOCK),
        }
    }

    /// Bytes of both moments of so many elements.
    pub fn bytes(self, elements: u64) -> u64 {
        let float = size_of::<f32>() as u64;
        match self {
            Self::Float => 2 * elements * float,
            Self::Blocks => 2 * (elements + self.scales(elements as usize) as u64 * float),
        }
    }
}

/// The two moments of a tensor, its elements in row-major order.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a few live at a time, and a box would only hide handles")]
pub enum Moments {
    /// As f32, in the tensor's shape.
    Float {
        /// Mean of the gradient.
        first: Tensor<3>,
        /// Mean of its square.
        second: Tensor<3>,
    },
    /// As codes, `[elements]` in u8, and scales in f32, one a block of 256: the first moment's, then the second's.
    Blocks {
        /// Places in the signed, and for the second moment the unsigned dynamic map.
        codes: [Tensor<1, Int>; 2],
        /// Largest magnitude of each block.
        scales: [Tensor<1>; 2],
    },
}

impl Moments {
    /// Zeros for a tensor, on its device.
    pub(super) fn zeros(format: MomentFormat, tensor: &Tensor<3>) -> Self {
        let device = tensor.device();
        let n = tensor.dims().iter().product::<usize>();
        match format {
            MomentFormat::Float => {
                let moment = || zeros(tensor.dims(), DType::F32, &device);
                Self::Float { first: moment(), second: moment() }
            }
            MomentFormat::Blocks => {
                let codes = |code| bytes(n, code, &device);
                let scales = || zeros([format.scales(n)], DType::F32, &device);
                Self::Blocks { codes: [codes(ZERO_FIRST), codes(0)], scales: [scales(), scales()] }
            }
        }
    }

    /// How they are kept.
    pub fn format(&self) -> MomentFormat {
        match self {
            Self::Float { .. } => MomentFormat::Float,
            Self::Blocks { .. } => MomentFormat::Blocks,
        }
    }
}
