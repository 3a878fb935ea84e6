//! NF4 to f32, bit for bit what bitsandbytes gives.

use super::{BLOCK, NESTED_BLOCK};
use crate::error::{Error, Result, check_finite, check_length};

/// The type a weight had before it was packed; values are rounded to it, as bitsandbytes casts its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Not rounded further.
    F32,
    /// Rounded to bfloat16, ties to even.
    Bf16,
    /// Rounded to float16, ties to even.
    F16,
}

/// Doubly quantized scales, borrowed from a file.
#[derive(Debug, Clone, Copy)]
pub struct Scales<'a> {
    /// `absmax`: a code a block.
    pub codes: &'a [u8],
    /// `nested_absmax`: a number for each [`NESTED_BLOCK`] codes, the last of which may be fewer.
    pub nested_absmax: &'a [f32],
    /// `nested_quant_map`: the numbers of the codes.
    pub nested_map: &'a [f32],
    /// `nested_offset`
    pub nested_offset: f32,
}

impl Scales<'_> {
    /// The scale of every block.
    ///
    /// # Errors
    /// The lengths do not agree, or a part or a result is not finite.
    pub fn decode(&self) -> Result<Vec<f32>> {
        self.check_parts()?;
        let mut scales = Vec::with_capacity(self.codes.len());
        for (codes, &nested) in self.codes.chunks(NESTED_BLOCK).zip(self.nested_absmax) {
            scales.extend(
                codes.iter().map(|&code| self.nested_map[usize::from(code)] * nested + self.nested_offset),
            );
        }
        check_finite("scale", &scales)?;
        Ok(scales)
    }

    /// A number that no scale exceeds in size, with the errors of [`decode`](Self::decode); the scales are looked at one by
    /// one only where some might not be finite.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn bound(&self) -> Result<f32> {
        self.check_parts()?;
        let largest = |values: &[f32]| values.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        // Rounding keeps the order, so that this holds after it too.
        let bound = largest(self.nested_map) * largest(self.nested_absmax) + self.nested_offset.abs();
        if bound.is_finite() { Ok(bound) } else { self.decode().map(|scales| largest(&scales)) }
    }

    fn check_parts(&self) -> Result<()> {
        check_length("nested_absmax", self.codes.len().div_ceil(NESTED_BLOCK), self.nested_absmax.len())?;
        check_length("nested_quant_map", 256, self.nested_map.len())?;
        check_finite("nested_absmax", self.nested_absmax)?;
        check_finite("nested_quant_map", self.nested_map)?;
        check_finite("nested_offset", &[self.nested_offset])
    }
}

/// Decodes a weight, or a part of one that begins at a block.
///
/// # Shapes
/// - `out`: `[n]`; `packed`: `[ceil(n / 2)]`; `scales`: `[ceil(n / 64)]`; `quant_map`: `[16]`
///
/// # Errors
/// The lengths do not agree.
pub fn decode(
    packed: &[u8],
    scales: &[f32],
    quant_map: &[f32],
    precision: Precision,
    out: &mut [f32],
) -> Result<()> {
    let map: &[f32; 16] = quant_map.try_into().map_err(|_| Error::Length {
        part: "quant_map",
        expected: 16,
        actual: quant_map.len(),
    })?;
    check_length("weight", out.len().div_ceil(2), packed.len())?;
    check_length("absmax", out.len().div_ceil(BLOCK), scales.len())?;
    let round: fn(f32) -> f32 = match precision {
        Precision::F32 => |x| x,
        Precision::Bf16 => |x| half::bf16::from_f32(x).to_f32(),
        Precision::F16 => |x| half::f16::from_f32(x).to_f32(),
    };
    for ((out, packed), &scale) in out.chunks_mut(BLOCK).zip(packed.chunks(BLOCK / 2)).zip(scales) {
        // Sixteen products a block instead of one an element; the same products, so the same bits.
        let values = map.map(|x| round(x * scale));
        for (pair, &byte) in out.chunks_mut(2).zip(packed) {
            pair[0] = values[usize::from(byte >> 4)];
            if let Some(odd) = pair.get_mut(1) {
                *odd = values[usize::from(byte & 15)];
            }
        }
    }
    Ok(())
}
