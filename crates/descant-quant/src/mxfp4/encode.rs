//! f32 to MXFP4.
//!
//! **Rounding**: to the nearest number of the format; a tie goes to the even code, as in IEEE 754; beyond 6 it
//! saturates. **Exponent**: the OCP rule takes `floor(log2(largest)) - 2`, which clips everything above 6 of a
//! possible 8. We take the exponent of least squared error of all, the lowest where several are equal; so numbers that
//! came from MXFP4 come back exactly. A block of zeros gets the scale 0.
//!
//! It is never further than one from OCP's, so only three are tried. Two above: no number is beyond 4 of the one
//! between, whose levels up to there include the higher one's. Two below: the largest number, 4 to 8 of OCP's unit, is
//! clipped to 1.5, which costs 6.25 more at least, and the 31 others gain 1/16 each at most.
//!
//! This is a codec for tests, tools and exports. Published experts that nothing changed are never encoded again.

use std::ops::RangeInclusive;

use super::{BIAS, BLOCK, BLOCK_BYTES, scale};
use crate::error::{Result, check_finite, check_length};

/// Largest scale whose every code is finite in f32: 6 * 2^125.
const MAX_SCALE: i32 = 252;
/// log2 of the largest power of two among the codes.
const MAX_EXPONENT: i32 = 2;
/// How many exponents on either side of the OCP rule's are tried.
const REACH: i32 = 1;
/// Numbers that are worked on side by side.
const LANES: usize = 8;
/// The largest number of the format.
pub(super) const MAX_LEVEL: f32 = 6.0;

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
        *out = best_scale(values);
        let (pairs, _) = values.as_chunks::<2>();
        for (byte, &[even, odd]) in block.iter_mut().zip(pairs) {
            *byte = code(even, *out) | code(odd, *out) << 4;
        }
    }
    Ok(())
}

/// The scale byte of least squared error for a block of finite values.
#[inline]
pub fn best_scale(values: &[f32; BLOCK]) -> u8 {
    let ocp = ocp_scale(values);
    let candidates = (ocp - REACH).max(0) as u8..=(ocp + REACH).min(MAX_SCALE) as u8;
    clearly_best(values, candidates.clone()).unwrap_or_else(|| exactly_best(values, candidates))
}

/// The least in f64, which cannot overflow, the lowest of several.
fn exactly_best(values: &[f32; BLOCK], candidates: RangeInclusive<u8>) -> u8 {
    let mut best = (f64::INFINITY, 0);
    for byte in candidates {
        let error = squared_error(values, byte);
        if error < best.0 {
            best = (error, byte);
        }
    }
    best.1
}

/// The same in f32, which is three times as fast, where it leaves no doubt.
#[inline]
fn clearly_best(values: &[f32; BLOCK], candidates: RangeInclusive<u8>) -> Option<u8> {
    /// The rounding of 32 products and sums is far below this share of what they come to.
    const DOUBT: f64 = 1e-4;
    /// Smaller sums may have lost terms to underflow.
    const LEAST: f32 = 1e-30;
    let mut found = [(f64::INFINITY, 0, f32::INFINITY); 2 * REACH as usize + 1];
    for (found, byte) in found.iter_mut().zip(candidates) {
        let sum = squared_error_f32(values, byte);
        let scale = f64::from(scale(byte));
        *found = (f64::from(sum) * scale * scale, byte, sum);
    }
    let best = found.into_iter().reduce(|best, other| if other.0 < best.0 { other } else { best })?;
    let worse = |other: &&(f64, u8, f32)| other.2 > LEAST && best.0 < other.0 * (1.0 - DOUBT);
    (found.iter().filter(worse).count() == found.len() - 1).then_some(best.1)
}

/// The scale byte of the OCP rule, kept within what the byte and f32 can say.
fn ocp_scale(values: &[f32; BLOCK]) -> i32 {
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    // Subnormals have an exponent field of 0, as zero has: their scale is the smallest in any case.
    let exponent = (largest.to_bits() >> 23) as i32 - BIAS;
    (exponent - MAX_EXPONENT + BIAS).clamp(0, MAX_SCALE)
}

/// 1 / scale, exactly; the largest scale that is used here has a normal one.
#[inline]
pub(super) fn inverse(byte: u8) -> f32 {
    1.0 / scale(byte)
}

/// The distance between the numbers of the format where `magnitude` lies, and its inverse.
#[inline]
fn step(magnitude: f32) -> (f32, f32) {
    let wide = if magnitude < 4.0 { (1.0, 1.0) } else { (2.0, 0.5) };
    if magnitude < 2.0 { (0.5, 2.0) } else { wide }
}

/// The number of the format nearest to a magnitude that was divided by the scale; ties to the even code.
#[inline]
fn nearest(magnitude: f32) -> f32 {
    /// Adding and taking away 2^23 rounds to whole numbers, ties to even.
    const WHOLE: f32 = 8_388_608.0;
    let magnitude = magnitude.min(8.0);
    let (step, inverse) = step(magnitude);
    // Within a step's range even codes are the even multiples of it.
    (((magnitude * inverse + WHOLE) - WHOLE) * step).min(MAX_LEVEL)
}

/// The code of a number of the format.
#[inline]
pub(super) fn code_of(level: f32) -> u8 {
    // 0 .5 1 1.5 2 count halves; 3 is 5, 4 is 6, 6 is 7.
    let code = if level <= 2.0 { level * 2.0 } else { level.min(4.0) + 2.0 + (level - 4.0).max(0.0) * 0.5 };
    code as u8
}

/// The code nearest to `value` under a scale.
#[inline]
fn code(value: f32, byte: u8) -> u8 {
    // Dividing by a power of two is exact down to subnormals, which are far below the first midpoint.
    code_of(nearest(value.abs() * inverse(byte))) | u8::from(value.is_sign_negative()) << 3
}

/// Sum of squared differences under a scale, in f64: it cannot overflow.
#[inline]
fn squared_error(values: &[f32; BLOCK], byte: u8) -> f64 {
    let inverse = inverse(byte);
    let mut errors = [0.0_f64; BLOCK];
    for (error, value) in errors.iter_mut().zip(values) {
        let magnitude = value.abs() * inverse;
        let difference = f64::from(magnitude) - f64::from(nearest(magnitude));
        *error = difference * difference;
    }
    let scale = f64::from(scale(byte));
    errors.iter().sum::<f64>() * scale * scale
}

/// Sum of squared differences under a scale, in units of it.
#[inline]
fn squared_error_f32(values: &[f32; BLOCK], byte: u8) -> f32 {
    let inverse = inverse(byte);
    let mut sums = [0.0_f32; LANES];
    let (groups, _) = values.as_chunks::<LANES>();
    for group in groups {
        for (sum, value) in sums.iter_mut().zip(group) {
            let magnitude = value.abs() * inverse;
            let difference = magnitude - nearest(magnitude);
            *sum += difference * difference;
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::super::VALUES;
    use super::*;

    #[test]
    fn the_best_scale_is_the_one_of_least_error_among_all() {
        let mut dice = 1_u64;
        let mut number = |spread: i32| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let x = (dice >> 40) as f32 / (1 << 23) as f32 - 1.0;
            x * 2.0_f32.powi((dice % (2 * spread as u64 + 1)) as i32 - spread)
        };
        let blocks = if cfg!(miri) { 20 } else { 20_000 };
        let mut quick = 0;
        for n in 0..blocks {
            // Alike, far apart, multiples of a number of the format, and the ends of what f32 has.
            let size = [1.0, 2.0_f32.powi(-140), 2.0_f32.powi(120), 0.5][n % 4];
            let mut values = [0.0; BLOCK];
            for value in &mut values {
                let x = number([0, 6, 1][n % 3]);
                *value = if n % 5 == 0 { VALUES[(x.abs() * 7.0) as usize % 16] * size } else { x * size };
            }
            let ocp = ocp_scale(&values);
            // Under scales that are much larger the smallest numbers underflow, and their error with them.
            let far = (ocp - 20).max(0) as u8..=(ocp + 8).min(MAX_SCALE) as u8;
            assert_eq!(best_scale(&values), exactly_best(&values, far), "{values:?}");
            let near = (ocp - REACH).max(0) as u8..=(ocp + REACH).min(MAX_SCALE) as u8;
            quick += usize::from(clearly_best(&values, near).is_some());
        }
        assert!(quick > blocks / 3, "{quick}");
    }

    #[test]
    fn codes_are_those_of_the_table_and_ties_go_to_the_even_one() {
        for (expected, level) in VALUES[..8].iter().enumerate() {
            assert_eq!(code_of(*level), expected as u8);
        }
        for pair in 0..7_u8 {
            let (low, high) = (VALUES[usize::from(pair)], VALUES[usize::from(pair) + 1]);
            let middle = f32::midpoint(low, high);
            let even = pair + pair % 2;
            assert_eq!(code(middle, BIAS as u8), even, "{middle}");
            assert_eq!(code(middle.next_down(), BIAS as u8), pair, "{middle}");
            assert_eq!(code(middle.next_up(), BIAS as u8), pair + 1, "{middle}");
        }
        assert_eq!(code(-0.0, BIAS as u8), 8);
        assert_eq!(code(1e30, BIAS as u8), 7);
        assert_eq!(code(f32::MIN, BIAS as u8), 15);
    }
}
