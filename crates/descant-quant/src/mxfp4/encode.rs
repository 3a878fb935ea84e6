//! f32 to MXFP4.
//!
//! **Rounding**: to the nearest number of the format; a tie goes to the even code, as in IEEE 754; beyond 6 it
//! saturates. **Exponent**: the OCP rule takes `floor(log2(largest)) - 2`, which clips everything above 6 of a
//! possible 8. We take that exponent or the next one, whichever has the smaller squared error, the lower one where
//! they are equal; so numbers that came from MXFP4 come back exactly. A block of zeros gets the scale 0.
//!
//! This is a codec for tests, tools and exports. Published experts are never encoded again.

use super::{BIAS, BLOCK, BLOCK_BYTES, VALUES, scale};
use crate::error::{Result, check_finite, check_length};

/// Largest scale whose every code is finite in f32: 6 * 2^125.
const MAX_SCALE: i32 = 252;
/// log2 of the largest power of two among the codes.
const MAX_EXPONENT: i32 = 2;
/// Halfway between neighbouring codes, and whether a tie stays at the lower one because that is even.
const MIDPOINTS: [(f32, bool); 7] =
    [(0.25, true), (0.75, false), (1.25, true), (1.75, false), (2.5, true), (3.5, false), (5.0, true)];

/// Encodes whole blocks.
///
/// # Shapes
/// - `values`: `[n * 32]`; `blocks`: `[n * 16]`; `scales`: `[n]`
///
/// # Errors
/// The lengths do not agree, or a value is not finite; `blocks` and `scales` are then as they were.
pub fn encode(values: &[f32], blocks: &mut [u8], scales: &mut [u8]) -> Result<()> {
    check_length("values", BLOCK * scales.len(), values.len())?;
    check_length("blocks", BLOCK_BYTES * scales.len(), blocks.len())?;
    check_finite("value", values)?;
    let (values, _) = values.as_chunks::<BLOCK>();
    let (blocks, _) = blocks.as_chunks_mut::<BLOCK_BYTES>();
    for ((values, block), out) in values.iter().zip(blocks).zip(scales) {
        let low = lower_scale(values);
        let high = (i32::from(low) + 1).min(MAX_SCALE) as u8;
        let chosen = if squared_error(values, high) < squared_error(values, low) { high } else { low };
        *out = chosen;
        let (pairs, _) = values.as_chunks::<2>();
        for (byte, &[even, odd]) in block.iter_mut().zip(pairs) {
            *byte = code(even, chosen) | code(odd, chosen) << 4;
        }
    }
    Ok(())
}

/// The scale byte of the OCP rule, kept within what the byte and f32 can say.
fn lower_scale(values: &[f32; BLOCK]) -> u8 {
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    // Subnormals have an exponent field of 0, as zero has: their scale is the smallest in any case.
    let exponent = (largest.to_bits() >> 23) as i32 - BIAS;
    (exponent - MAX_EXPONENT + BIAS).clamp(0, MAX_SCALE) as u8
}

/// The code nearest to `value` under a scale.
fn code(value: f32, byte: u8) -> u8 {
    // Dividing by a power of two is exact down to subnormals, which are far below the first midpoint.
    let magnitude = value.abs() / scale(byte);
    let passed = |&&(middle, tie_stays): &&(f32, bool)| {
        if tie_stays { magnitude > middle } else { magnitude >= middle }
    };
    MIDPOINTS.iter().filter(passed).count() as u8 | u8::from(value.is_sign_negative()) << 3
}

/// Sum of squared differences under a scale, in f64: it cannot overflow.
fn squared_error(values: &[f32; BLOCK], byte: u8) -> f64 {
    let scale = f64::from(scale(byte));
    values
        .iter()
        .map(|&value| {
            let difference = f64::from(value) - f64::from(VALUES[usize::from(code(value, byte))]) * scale;
            difference * difference
        })
        .sum()
}
