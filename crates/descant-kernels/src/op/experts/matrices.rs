//! The experts' frozen matrices: where their numbers are, how they are packed, and the side that rows meet.

use descant_quant::Packing;

use crate::cuda::{CudaError, Define, Result};

/// Frozen matrices of all experts of a layer, `[experts, rows, columns]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Experts {
    pub(crate) data: ExpertData,
    pub(crate) count: usize,
    /// Rows of a stored matrix.
    pub(crate) rows: usize,
    /// Columns of a stored matrix; packed blocks lie along them.
    pub(crate) columns: usize,
}

/// Where the numbers are, generic over what a tensor is at a stage: a card's tensor, a buffer, an address.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ExpertData<T = u64> {
    /// As kernels read them.
    Packed(PackedData<T>),
    /// `[experts, rows, columns]`, bf16.
    Bf16(T),
    /// Packed like this on the host; where, is known once a slot was entered.
    Streamed(Packing),
}

/// The pieces of packed matrices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum PackedData<T = u64> {
    /// In the order of [`descant_quant::mxfp4::tiles`]: `[experts, rows / 16, columns / 16, 128]` and `[experts, rows / 16,
    /// columns / 32, 16]`, u8.
    Mxfp4 { blocks: T, scales: T },
    /// `[experts, rows, columns / 64, 32]` and `[experts, rows, columns / 64]`, u8, and what `nf4.cuh` calls tables.
    Nf4 { blocks: T, scales: T, tables: T },
}

impl<T> PackedData<T> {
    pub(crate) fn packing(&self) -> Packing {
        match self {
            Self::Mxfp4 { .. } => Packing::Mxfp4,
            Self::Nf4 { .. } => Packing::Nf4,
        }
    }

    pub(crate) fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> PackedData<U> {
        match self {
            Self::Mxfp4 { blocks, scales } => PackedData::Mxfp4 { blocks: f(blocks), scales: f(scales) },
            Self::Nf4 { blocks, scales, tables } => {
                PackedData::Nf4 { blocks: f(blocks), scales: f(scales), tables: f(tables) }
            }
        }
    }
}

impl PackedData {
    /// Of pieces that lie one behind the other, in the order of [`map`](Self::map).
    pub(crate) fn new(packing: Packing, pieces: &[u64]) -> Result<Self> {
        match (packing, pieces) {
            (Packing::Mxfp4, &[blocks, scales]) => Ok(Self::Mxfp4 { blocks, scales }),
            (Packing::Nf4, &[blocks, scales, tables]) => Ok(Self::Nf4 { blocks, scales, tables }),
            _ => Err(CudaError::backend("packed matrices without all of their pieces")),
        }
    }

    /// Blocks, scales, and tables where there are some.
    pub(crate) fn pieces(self) -> [u64; 3] {
        match self {
            Self::Mxfp4 { blocks, scales } => [blocks, scales, 0],
            Self::Nf4 { blocks, scales, tables } => [blocks, scales, tables],
        }
    }
}

impl<T> ExpertData<T> {
    pub(crate) fn packing(&self) -> Packing {
        match self {
            Self::Packed(data) => data.packing(),
            Self::Streamed(packing) => *packing,
            Self::Bf16(_) => Packing::Plain,
        }
    }

    pub(crate) fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> ExpertData<U> {
        match self {
            Self::Packed(data) => ExpertData::Packed(data.map(f)),
            Self::Bf16(data) => ExpertData::Bf16(f(data)),
            Self::Streamed(packing) => ExpertData::Streamed(*packing),
        }
    }
}

impl Experts {
    /// `count` matrices that take `inputs` features to `outputs`: packed ones are stored by output, unpacked ones by
    /// input.
    pub(crate) fn new(data: ExpertData, count: usize, outputs: usize, inputs: usize) -> Self {
        match data.packing() {
            Packing::Plain => Self { data, count, rows: inputs, columns: outputs },
            Packing::Mxfp4 | Packing::Nf4 => Self { data, count, rows: outputs, columns: inputs },
        }
    }

    /// The side that the forward's rows meet.
    pub(crate) fn forward_side(&self) -> Side {
        match self.data.packing() {
            Packing::Plain => Side::Rows,
            Packing::Mxfp4 | Packing::Nf4 => Side::Columns,
        }
    }

    /// The side that the backward's rows meet.
    pub(crate) fn backward_side(&self) -> Side {
        match self.forward_side() {
            Side::Columns => Side::Rows,
            Side::Rows => Side::Columns,
        }
    }

    /// Numbers of a sum over this side, and of a row of the result.
    pub(crate) fn sizes(&self, side: Side) -> (usize, usize) {
        match side {
            Side::Columns => (self.columns, self.rows),
            Side::Rows => (self.rows, self.columns),
        }
    }

    /// Bytes of all matrices.
    pub(crate) fn bytes(&self) -> usize {
        let numbers = self.count * self.rows * self.columns;
        self.data.packing().bytes(numbers as u64, 2) as usize
    }
}

/// Which side of the matrix the rows of the activation meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// `out = a · W^T`: the sum runs over columns.
    Columns,
    /// `out = a · W`: the sum runs over rows.
    Rows,
}

impl Side {
    /// What a file of one kernel a side is compiled with for it.
    pub(super) fn define(self) -> Define {
        ("BACKWARD", i64::from(self == Self::Rows))
    }

    /// The kernel that sums over it.
    pub(super) fn entry(self) -> &'static str {
        match self {
            Self::Columns => "experts_forward",
            Self::Rows => "experts_backward",
        }
    }
}
