//! Matrices of one shape, as products read them: packed as in the file, but stacked, with nibbles in the order of MXFP4
//! and all that scales are made of in one table.
//!
//! ```text
//! blocks  [matrices, rows, columns / 64, 32]    byte j of a block holds element 2j in its low, 2j + 1 in its high nibble
//! scales  [matrices, rows, columns / 64]        absmax: a code a block
//! tables  [16] numbers of the nibbles, [256] numbers of the codes, [matrices] offsets, [matrices, nested] nested scales
//! ```
//!
//! Blocks do not go over the end of a row, so the columns are a multiple of [`BLOCK`]. Values are rounded to bfloat16.

use half::bf16;

use super::{BLOCK, NESTED_BLOCK};
use crate::error::{Error, Result, check_finite, check_length};

/// Numbers of the nibbles.
const LEVELS: usize = 16;
/// Numbers of the codes.
const CODES: usize = 256;

/// A matrix in the parts that bitsandbytes saves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Packed<'a> {
    /// `weight`, high nibble first.
    pub packed: &'a [u8],
    /// `absmax`
    pub codes: &'a [u8],
    /// `nested_absmax`
    pub nested_absmax: &'a [f32],
    /// `nested_offset`
    pub nested_offset: f32,
    /// `quant_map`
    pub levels: &'a [f32],
    /// `nested_quant_map`
    pub map: &'a [f32],
}

/// Matrices that fit together, still where they were read: what a [`Stack`] of them will be.
///
/// A stack of all experts of a layer has hundreds of megabytes. Whoever brings it elsewhere asks for it piece by piece,
/// several threads at once if they like.
#[derive(Debug, Clone)]
pub struct Stacked<'a> {
    matrices: Vec<Packed<'a>>,
    tables: Vec<f32>,
}

impl<'a> Stacked<'a> {
    /// Of matrices of the same number of rows and columns.
    ///
    /// # Errors
    /// There is none, their parts do not fit together, or they differ in their code books.
    pub fn new(matrices: Vec<Packed<'a>>) -> Result<Self> {
        let Some(first) = matrices.first() else { return Err(Error::Books) };
        let blocks = first.codes.len();
        check_length("quant_map", LEVELS, first.levels.len())?;
        check_length("nested_quant_map", CODES, first.map.len())?;
        let mut tables = [first.levels, first.map].concat();
        tables.extend(matrices.iter().map(|matrix| matrix.nested_offset));
        for matrix in &matrices {
            if matrix.levels != first.levels || matrix.map != first.map {
                return Err(Error::Books);
            }
            check_length("absmax", blocks, matrix.codes.len())?;
            check_length("weight", blocks * BLOCK / 2, matrix.packed.len())?;
            check_length("nested_absmax", blocks.div_ceil(NESTED_BLOCK), matrix.nested_absmax.len())?;
            tables.extend(matrix.nested_absmax);
        }
        check_finite("table", &tables)?;
        Ok(Self { matrices, tables })
    }

    /// See [`Stack::tables`].
    pub fn tables(&self) -> &[f32] {
        &self.tables
    }

    /// Bytes of [`Stack::blocks`].
    pub fn blocks_len(&self) -> usize {
        self.matrices.len() * self.matrices[0].packed.len()
    }

    /// Bytes of [`Stack::scales`].
    pub fn scales_len(&self) -> usize {
        self.matrices.len() * self.matrices[0].codes.len()
    }

    /// Writes bytes `first..` of [`Stack::blocks`], as many as fill `out`.
    ///
    /// # Panics
    /// There are not as many.
    pub fn copy_blocks(&self, first: usize, out: &mut [u8]) {
        self.copy(
            first,
            out,
            |matrix| matrix.packed,
            |to, from| {
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from.rotate_left(4));
            },
        );
    }

    /// Writes bytes `first..` of [`Stack::scales`], as many as fill `out`.
    ///
    /// # Panics
    /// There are not as many.
    pub fn copy_scales(&self, first: usize, out: &mut [u8]) {
        self.copy(first, out, |matrix| matrix.codes, <[u8]>::copy_from_slice);
    }

    /// Goes over the matrices that `out` touches.
    fn copy(
        &self,
        first: usize,
        mut out: &mut [u8],
        part: impl Fn(&Packed<'a>) -> &'a [u8],
        write: impl Fn(&mut [u8], &[u8]),
    ) {
        let each = part(&self.matrices[0]).len();
        let mut at = first;
        while !out.is_empty() {
            let from = &part(&self.matrices[at / each])[at % each..];
            let (to, rest) = out.split_at_mut(from.len().min(out.len()));
            write(to, &from[..to.len()]);
            at += to.len();
            out = rest;
        }
    }
}

/// See the head of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Stack {
    /// As above.
    pub blocks: Vec<u8>,
    /// As above.
    pub scales: Vec<u8>,
    /// As above.
    pub tables: Vec<f32>,
}

impl Stack {
    /// Stacks matrices of the same number of rows and columns.
    ///
    /// # Errors
    /// As [`Stacked::new`].
    pub fn new(matrices: &[Packed<'_>]) -> Result<Self> {
        let stacked = Stacked::new(matrices.to_vec())?;
        let (mut blocks, mut scales) = (vec![0; stacked.blocks_len()], vec![0; stacked.scales_len()]);
        stacked.copy_blocks(0, &mut blocks);
        stacked.copy_scales(0, &mut scales);
        Ok(Self { blocks, scales, tables: stacked.tables })
    }

    /// The same, to be read.
    pub fn view(&self) -> View<'_> {
        View { blocks: &self.blocks, scales: &self.scales, tables: &self.tables }
    }

    /// Floats of the table for so many matrices of so many blocks.
    pub fn table_len(matrices: usize, blocks: usize) -> usize {
        LEVELS + CODES + matrices * (1 + blocks.div_ceil(NESTED_BLOCK))
    }
}

/// A borrowed [`Stack`].
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// See [`Stack::blocks`].
    pub blocks: &'a [u8],
    /// See [`Stack::scales`].
    pub scales: &'a [u8],
    /// See [`Stack::tables`].
    pub tables: &'a [f32],
}

impl View<'_> {
    /// Decodes blocks `first..` of matrix `matrix` out of `matrices`, as many as fill `out`.
    ///
    /// # Panics
    /// There are not as many.
    pub fn decode(&self, matrices: usize, matrix: usize, first: usize, out: &mut [f32]) {
        let blocks = self.scales.len() / matrices;
        let (levels, rest) = self.tables.split_at(LEVELS);
        let (map, rest) = rest.split_at(CODES);
        let (offsets, nested) = rest.split_at(matrices);
        let nested = &nested[matrix * blocks.div_ceil(NESTED_BLOCK)..];
        for (i, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            let (block, at) = (first + i, matrix * blocks + first + i);
            let absmax = map[usize::from(self.scales[at])] * nested[block / NESTED_BLOCK] + offsets[matrix];
            for (pair, byte) in out.chunks_exact_mut(2).zip(&self.blocks[at * BLOCK / 2..]) {
                let value = |nibble: u8| bf16::from_f32(levels[usize::from(nibble)] * absmax).to_f32();
                (pair[0], pair[1]) = (value(byte & 15), value(byte >> 4));
            }
        }
    }
}
