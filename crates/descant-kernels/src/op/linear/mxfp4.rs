//! MXFP4 as published becomes what a device reads: the same bytes on the CPU, tiles on a card.
//!
//! The one place that knows which device reads what, and of which matrices no tiles can be made. The order of tiles
//! is [`descant_quant::mxfp4::tiles`]'.

use std::fmt;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use descant_quant::mxfp4::{BLOCK, BLOCK_BYTES, tiles};

use super::weight::FrozenWeight;
use crate::DeviceError;
use crate::source::first_in;

/// Longest row that a card puts in tiles: 16 of them lie in shared memory, of which every card has 99 KiB.
const MOST_COLUMNS: usize = 12 << 10;

/// How a device reads MXFP4 matrices of one shape. Bytes are as many as the published ones, in another order on a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mxfp4Layout {
    /// Matrices, output features, input features.
    shape: [usize; 3],
    in_tiles: bool,
}

/// What MXFP4 matrices are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mxfp4Piece {
    /// Two numbers a byte.
    Blocks,
    /// One scale a block.
    Scales,
}

/// Why a card cannot read MXFP4 matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTiled {
    /// Their sizes are not whole tiles, or a row is longer than kernels take.
    Size {
        /// Output features.
        rows: usize,
        /// Input features.
        columns: usize,
    },
    /// A scale is larger than kernels take.
    Scale {
        /// Its place among the scales.
        element: usize,
        /// The scale.
        scale: u8,
    },
}

impl fmt::Display for NotTiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { rows, columns } => write!(
                f,
                "the matrices are {rows} by {columns}, and GPU kernels need multiples of {} by {BLOCK} and at most {MOST_COLUMNS} columns",
                tiles::ROWS
            ),
            Self::Scale { element, scale } => write!(
                f,
                "element {element} is {scale}, and GPU kernels take scales up to {}; the CPU takes all",
                tiles::LARGEST_SCALE
            ),
        }
    }
}

impl std::error::Error for NotTiled {}

impl Mxfp4Layout {
    /// Of matrices `[matrices, out, in]` on this device.
    ///
    /// # Errors
    /// A card has no kernel for the shape.
    pub fn new(shape: [usize; 3], device: &Device) -> Result<Self, NotTiled> {
        let [_, rows, columns] = shape;
        let in_tiles = !crate::is_cpu(device);
        if in_tiles && !(tiles::divide(rows, columns) && columns <= MOST_COLUMNS) {
            return Err(NotTiled::Size { rows, columns });
        }
        Ok(Self { shape, in_tiles })
    }

    /// Looks at published scales, before they are written.
    ///
    /// # Errors
    /// A card takes none so large.
    pub fn check_scales(&self, scales: &[u8]) -> Result<(), NotTiled> {
        match self.in_tiles.then(|| first_in(scales, tiles::too_large)).flatten() {
            Some(element) => Err(NotTiled::Scale { element, scale: scales[element] }),
            None => Ok(()),
        }
    }

    /// Writes bytes `first..` of what a published piece becomes, as many as fill `out`. Scales were looked at with
    /// [`check_scales`](Self::check_scales).
    pub fn write(&self, piece: Mxfp4Piece, published: &[u8], first: usize, out: &mut [u8]) {
        match piece {
            _ if !self.in_tiles => out.copy_from_slice(&published[first..][..out.len()]),
            Mxfp4Piece::Blocks => tiles::write_blocks(published, self.shape[2], first, out),
            Mxfp4Piece::Scales => tiles::write_scales(published, self.shape[2], first, out),
        }
    }

    /// What the card itself puts in tiles, if it is one that reads them.
    #[cfg(feature = "cuda")]
    pub(crate) fn tiled(&self) -> Option<[usize; 3]> {
        self.in_tiles.then_some(self.shape)
    }

    /// The weight of what was written.
    pub fn weight(&self, blocks: Tensor<1, Int>, scales: Tensor<1, Int>) -> FrozenWeight {
        let [count, rows, columns] = self.shape;
        if !self.in_tiles {
            return FrozenWeight::Mxfp4 {
                blocks: blocks.reshape([count, rows, columns / BLOCK, BLOCK_BYTES]),
                scales: scales.reshape([count, rows, columns / BLOCK]),
            };
        }
        let bands = rows / tiles::ROWS;
        FrozenWeight::Mxfp4Tiles {
            blocks: blocks.reshape([count, bands, columns / tiles::COLUMNS, tiles::BYTES]),
            scales: scales.reshape([count, bands, columns / BLOCK, tiles::SCALE_BYTES]),
        }
    }
}

impl FrozenWeight {
    /// MXFP4 matrices `[matrices, out, in]` from their published bytes, in the form that the device reads.
    ///
    /// # Errors
    /// A card has no kernel for the shape, or a scale is too large for one.
    pub fn mxfp4(
        blocks: &[u8],
        scales: &[u8],
        shape: [usize; 3],
        device: &Device,
    ) -> Result<Self, DeviceError> {
        let layout = Mxfp4Layout::new(shape, device).map_err(|why| DeviceError::new(why.to_string()))?;
        layout.check_scales(scales).map_err(|why| DeviceError::new(why.to_string()))?;
        let (mut of_blocks, mut of_scales) = (vec![0; blocks.len()], vec![0; scales.len()]);
        layout.write(Mxfp4Piece::Blocks, blocks, 0, &mut of_blocks);
        layout.write(Mxfp4Piece::Scales, scales, 0, &mut of_scales);
        let tensor = |bytes: Vec<u8>| {
            let length = bytes.len();
            Tensor::<1, Int>::from_data(TensorData::new(bytes, [length]), (device, DType::U8))
        };
        Ok(layout.weight(tensor(of_blocks), tensor(of_scales)))
    }

    /// Published MXFP4 from the CPU, in the form that another device reads.
    ///
    /// # Errors
    /// As [`mxfp4`](Self::mxfp4); it is something else.
    pub fn mxfp4_on(&self, device: &Device) -> Result<Self, DeviceError> {
        let Self::Mxfp4 { blocks, scales } = self else {
            return Err(DeviceError::new("only MXFP4 as published is brought to another device like this"));
        };
        let bytes = |data: TensorData| data.iter::<i64>().map(|byte| byte as u8).collect::<Vec<u8>>();
        let (blocks, scales) = (bytes(blocks.clone().into_data()), bytes(scales.clone().into_data()));
        Self::mxfp4(&blocks, &scales, [self.n_matrices(), self.d_out(), self.d_in()], device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TILED: Mxfp4Layout = Mxfp4Layout { shape: [2, 32, 64], in_tiles: true };

    #[test]
    fn what_no_tiles_can_be_made_of_is_said_by_the_device_that_reads_tiles_alone() {
        let cpu = Mxfp4Layout::new([2, 33, 64], &Device::flex()).unwrap();
        let scales = [127, 128, 129];
        assert_eq!(cpu.check_scales(&scales), Ok(()));
        let wrong = TILED.check_scales(&scales).unwrap_err();
        assert_eq!(wrong, NotTiled::Scale { element: 2, scale: 129 });
        assert!(wrong.to_string().contains("scales up to 128"), "{wrong}");
        assert_eq!(TILED.check_scales(&scales[..2]), Ok(()));
    }

    #[test]
    fn what_is_written_in_pieces_is_what_is_written_at_once_and_has_the_shape_of_its_weight() {
        let cpu = Mxfp4Layout { in_tiles: false, ..TILED };
        let numbers = 2 * 32 * 64;
        let blocks: Vec<u8> = (0..numbers / 2).map(|n| (n * 7 % 251) as u8).collect();
        let scales: Vec<u8> = (0..numbers / BLOCK).map(|n| (100 + n % 28) as u8).collect();
        for layout in [cpu, TILED] {
            let written = |of: &[u8], piece| {
                let (mut whole, mut pieces) = (vec![0; of.len()], vec![0; of.len()]);
                layout.write(piece, of, 0, &mut whole);
                pieces.chunks_mut(37).enumerate().for_each(|(n, out)| layout.write(piece, of, 37 * n, out));
                assert_eq!(whole, pieces);
                whole
            };
            let of_blocks = written(&blocks, Mxfp4Piece::Blocks);
            let of_scales = written(&scales, Mxfp4Piece::Scales);
            assert_eq!(of_blocks == blocks, !layout.in_tiles, "tiles have another order");
            let tensor = |bytes: &[u8]| Tensor::<1, Int>::from_data(bytes, &Device::flex());
            let weight = layout.weight(tensor(&of_blocks), tensor(&of_scales));
            assert_eq!([weight.n_matrices(), weight.d_out(), weight.d_in()], [2, 32, 64]);
        }
    }
}
