//! Frozen matrices as a checkpoint stores them, and the assignment of rows to matrices.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, ExtensionType};
use burn::tensor::{Device, Int, Tensor};
use descant_quant::mxfp4::tiles;
use descant_quant::nf4;

use crate::stream::StreamedMatrix;

/// Elements of an MXFP4 block.
pub(crate) const BLOCK: usize = descant_quant::mxfp4::BLOCK;

/// One or more frozen matrices of one shape.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a few live at a time, and a box would only hide handles")]
pub enum FrozenWeight {
    /// `[matrices, out, in]`, as `nn.Linear` stores it.
    Dense(Tensor<3>),
    /// `[matrices, in, out]`, as transformers stores unpacked gpt-oss experts.
    Transposed(Tensor<3>),
    /// Packed MXFP4 as published: 32 values of a row in 16 bytes, low nibble first, and a power of two a block. Only the CPU
    /// reads it; [`mxfp4`](Self::mxfp4) makes what the device reads.
    Mxfp4 {
        /// `[matrices, out, in / 32, 16]`, u8.
        blocks: Tensor<4, Int>,
        /// `[matrices, out, in / 32]`, u8; the exponent plus 127.
        scales: Tensor<3, Int>,
    },
    /// The same bytes in the order of [`descant_quant::mxfp4::tiles`]; only a card reads them.
    Mxfp4Tiles {
        /// `[matrices, out / 16, in / 16, 128]`, u8.
        blocks: Tensor<4, Int>,
        /// `[matrices, out / 16, in / 32, 16]`, u8.
        scales: Tensor<4, Int>,
    },
    /// Packed NF4, as [`descant_quant::nf4::Stack`] has it: 64 values of a row in 32 bytes and a code.
    Nf4 {
        /// `[matrices, out, in / 64, 32]`, u8.
        blocks: Tensor<4, Int>,
        /// `[matrices, out, in / 64]`, u8.
        scales: Tensor<3, Int>,
        /// f32, as many as [`table_len`](descant_quant::nf4::Stack::table_len) says.
        tables: Tensor<1>,
    },
    /// Packed ones on the host; only a card reads them.
    Streamed(StreamedMatrix),
}

impl FrozenWeight {
    /// Number of matrices.
    pub fn n_matrices(&self) -> usize {
        match self {
            Self::Dense(w) | Self::Transposed(w) => w.dims()[0],
            Self::Mxfp4 { scales, .. } | Self::Nf4 { scales, .. } => scales.dims()[0],
            Self::Mxfp4Tiles { scales, .. } => scales.dims()[0],
            Self::Streamed(matrix) => matrix.shape[0],
        }
    }

    /// Input features.
    pub fn d_in(&self) -> usize {
        match self {
            Self::Dense(w) => w.dims()[2],
            Self::Transposed(w) => w.dims()[1],
            Self::Mxfp4 { scales, .. } => scales.dims()[2] * BLOCK,
            Self::Mxfp4Tiles { scales, .. } => scales.dims()[2] * BLOCK,
            Self::Nf4 { scales, .. } => scales.dims()[2] * nf4::BLOCK,
            Self::Streamed(matrix) => matrix.shape[2],
        }
    }

    /// Output features.
    pub fn d_out(&self) -> usize {
        match self {
            Self::Dense(w) => w.dims()[1],
            Self::Transposed(w) => w.dims()[2],
            Self::Mxfp4 { scales, .. } | Self::Nf4 { scales, .. } => scales.dims()[1],
            Self::Mxfp4Tiles { scales, .. } => scales.dims()[1] * tiles::ROWS,
            Self::Streamed(matrix) => matrix.shape[1],
        }
    }

    /// Where it is.
    pub(crate) fn device(&self) -> Device {
        match self {
            Self::Dense(w) | Self::Transposed(w) => w.device(),
            Self::Mxfp4 { blocks, .. } | Self::Mxfp4Tiles { blocks, .. } | Self::Nf4 { blocks, .. } => {
                blocks.device()
            }
            Self::Streamed(matrix) => matrix.device(),
        }
    }

    pub(crate) fn primitive(&self) -> WeightPrimitive<Dispatch> {
        match self {
            Self::Dense(weight) => WeightPrimitive::Dense { weight: weight.clone().into_dispatch() },
            Self::Transposed(weight) => {
                WeightPrimitive::Transposed { weight: weight.clone().into_dispatch() }
            }
            Self::Mxfp4 { blocks, scales } => WeightPrimitive::Mxfp4 {
                blocks: blocks.clone().into_dispatch(),
                scales: scales.clone().into_dispatch(),
            },
            Self::Mxfp4Tiles { blocks, scales } => WeightPrimitive::Mxfp4Tiles {
                blocks: blocks.clone().into_dispatch(),
                scales: scales.clone().into_dispatch(),
            },
            Self::Nf4 { blocks, scales, tables } => WeightPrimitive::Nf4 {
                blocks: blocks.clone().into_dispatch(),
                scales: scales.clone().into_dispatch(),
                tables: tables.clone().into_dispatch(),
            },
            Self::Streamed(matrix) => WeightPrimitive::Streamed { matrix: matrix.clone() },
        }
    }
}

/// Which rows of an activation belong to which matrix.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a few live at a time, and a box would only hide handles")]
pub enum Groups {
    /// All rows to the only matrix.
    One,
    /// Rows sorted by matrix.
    Sorted {
        /// `[matrices + 1]`, i32: matrix `e` has rows `offsets[e]..offsets[e + 1]`.
        offsets: Tensor<1, Int>,
    },
    /// As these; and a row's result does not depend on how many others there are, bit for bit. Products of few rows are
    /// slower then.
    Apart(Box<Self>),
}

impl Groups {
    /// The same, and a row's result does not depend on how many others there are.
    #[must_use]
    pub fn apart(self) -> Self {
        Self::Apart(Box::new(self))
    }

    pub(crate) fn primitive(&self) -> RowGroups<Dispatch> {
        let apart = matches!(self, Self::Apart(_));
        match self.rows() {
            None => RowGroups::One { apart },
            Some(offsets) => RowGroups::Sorted { offsets: offsets.clone().into_dispatch(), apart },
        }
    }

    /// Where each matrix' rows begin; `None` where there is one matrix.
    pub(crate) fn rows(&self) -> Option<&Tensor<1, Int>> {
        match self {
            Self::One => None,
            Self::Sorted { offsets } => Some(offsets),
            Self::Apart(of) => of.rows(),
        }
    }
}

/// [`FrozenWeight`] of one backend.
#[derive(Debug, Clone, ExtensionType)]
pub(crate) enum WeightPrimitive<B: Backend> {
    Dense { weight: FloatTensor<B> },
    Transposed { weight: FloatTensor<B> },
    Mxfp4 { blocks: IntTensor<B>, scales: IntTensor<B> },
    Mxfp4Tiles { blocks: IntTensor<B>, scales: IntTensor<B> },
    Nf4 { blocks: IntTensor<B>, scales: IntTensor<B>, tables: FloatTensor<B> },
    Streamed { matrix: StreamedMatrix },
}

impl<B: Backend, C: CheckpointStrategy> WeightPrimitive<Autodiff<B, C>> {
    /// The same without the graph: frozen weights have none.
    pub(crate) fn inner(self) -> WeightPrimitive<B> {
        match self {
            Self::Dense { weight } => WeightPrimitive::Dense { weight: weight.into_primitive() },
            Self::Transposed { weight } => WeightPrimitive::Transposed { weight: weight.into_primitive() },
            Self::Mxfp4 { blocks, scales } => WeightPrimitive::Mxfp4 { blocks, scales },
            Self::Mxfp4Tiles { blocks, scales } => WeightPrimitive::Mxfp4Tiles { blocks, scales },
            Self::Nf4 { blocks, scales, tables } => {
                WeightPrimitive::Nf4 { blocks, scales, tables: tables.into_primitive() }
            }
            Self::Streamed { matrix } => WeightPrimitive::Streamed { matrix },
        }
    }
}

/// [`Groups`] of one backend.
#[derive(Debug, Clone, ExtensionType)]
pub(crate) enum RowGroups<B: Backend> {
    One { apart: bool },
    Sorted { offsets: IntTensor<B>, apart: bool },
}

impl<B: Backend> RowGroups<B> {
    /// Whether a row's result must not depend on how many others there are.
    #[cfg(feature = "cuda")]
    pub(crate) fn apart(&self) -> bool {
        match self {
            Self::One { apart } | Self::Sorted { apart, .. } => *apart,
        }
    }
}

impl<B: Backend, C: CheckpointStrategy> RowGroups<Autodiff<B, C>> {
    /// The same without the graph.
    pub(crate) fn inner(self) -> RowGroups<B> {
        match self {
            Self::One { apart } => RowGroups::One { apart },
            Self::Sorted { offsets, apart } => RowGroups::Sorted { offsets, apart },
        }
    }
}
