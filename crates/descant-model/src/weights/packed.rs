//! The published bytes of MXFP4 matrices on their way to where they are read: as they are on the CPU, in tiles on a card.

use descant_kernels::is_cpu;
use descant_quant::mxfp4::{self, tiles};

use burn::tensor::Device;

/// The blocks of matrices, or their scales.
pub(super) enum PackedPiece<'a> {
    /// As they came.
    Published { bytes: &'a [u8], shape: &'a [usize] },
    /// To be put in the order of tiles; `[matrices, rows, columns]`.
    Tiles { bytes: &'a [u8], size: [usize; 3], are_scales: bool },
}

impl<'a> PackedPiece<'a> {
    /// Of bytes whose shape was checked: `[matrices, rows, blocks, 16]`, or without the last for scales.
    ///
    /// # Errors
    /// Why a card cannot read them.
    pub(super) fn new(
        bytes: &'a [u8],
        shape: &'a [usize],
        are_scales: bool,
        device: &Device,
    ) -> Result<Self, String> {
        if is_cpu(device) {
            return Ok(Self::Published { bytes, shape });
        }
        let &[count, rows, blocks, ..] = shape else { unreachable!("packed matrices have these axes") };
        let columns = blocks * mxfp4::BLOCK;
        if !tiles::divide(rows, columns) {
            let (high, wide) = (tiles::ROWS, mxfp4::BLOCK);
            return Err(format!(
                "the matrices are {rows} by {columns}, and GPU kernels need multiples of {high} by {wide}"
            ));
        }
        if let (true, Some(element)) = (are_scales, tiles::too_large(bytes)) {
            let (scale, most) = (bytes[element], tiles::LARGEST_SCALE);
            return Err(format!(
                "element {element} is {scale}, and GPU kernels take scales up to {most}; the CPU takes all"
            ));
        }
        Ok(Self::Tiles { bytes, size: [count, rows, columns], are_scales })
    }

    /// What the tensor's shape becomes.
    pub(super) fn shape(&self) -> Vec<usize> {
        match *self {
            Self::Published { shape, .. } => shape.to_vec(),
            Self::Tiles { size: [count, rows, columns], are_scales: false, .. } => {
                vec![count, rows / tiles::ROWS, columns / tiles::COLUMNS, tiles::BYTES]
            }
            Self::Tiles { size: [count, rows, columns], .. } => {
                vec![count, rows / tiles::ROWS, columns / mxfp4::BLOCK, tiles::SCALE_BYTES]
            }
        }
    }

    /// Writes bytes `first..`, as many as fill `out`.
    pub(super) fn write(&self, first: usize, out: &mut [u8]) {
        match *self {
            Self::Published { bytes, .. } => out.copy_from_slice(&bytes[first..][..out.len()]),
            Self::Tiles { bytes, size: [.., columns], are_scales: true } => {
                tiles::write_scales(bytes, columns, first, out);
            }
            Self::Tiles { bytes, size: [.., columns], .. } => tiles::write_blocks(bytes, columns, first, out),
        }
    }
}
