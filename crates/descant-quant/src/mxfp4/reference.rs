//! MXFP4 in E5M2, exactly: blocks whose scales are near each other share a power of two.
//!
//! A number of MXFP4 is one of eight magnitudes times 2^(scale - 127). With a reference r it is (magnitude · 2^(scale - r +
//! 1)) · 2^(r - 128), and E5M2, the upper byte of an f16, holds the first factor as it is for scales from r - 16 (0.5 · 2^-15
//! is its smallest number) to r. Which blocks share a reference is a question of the sum that they are terms of: a
//! product's result is multiplied with the second factor once.

/// How far below its reference a scale may be.
pub const REACH: u8 = 16;
/// The least reference, so that the second factor is a normal number whatever it is multiplied with before.
pub const LEAST_REFERENCE: u8 = 64;

/// The reference of scales that are terms of one sum; none where they lie too far apart.
pub fn reference(scales: impl IntoIterator<Item = u8>) -> Option<u8> {
    let ends = scales
        .into_iter()
        .fold((u8::MAX, LEAST_REFERENCE), |(least, most), scale| (scale.min(least), scale.max(most)));
    let (least, most) = ends;
    (most <= least.saturating_add(REACH)).then_some(most)
}

#[cfg(test)]
mod tests {
    use super::super::{VALUES, scale};
    use super::*;

    /// The smallest exponent with an implied one, and what is added to an exponent.
    const LEAST_EXPONENT: i32 = -14;
    const BIAS: i32 = 15;
    /// How many of the smallest number make one.
    const OF_SMALLEST: f32 = 65_536.0;

    /// The code in E5M2 of a number of MXFP4 over its reference, as kernels make it (`packed_fp8.cuh`).
    fn in_e5m2(nibble: u8, scale: u8, reference: u8) -> u8 {
        let below = reference.checked_sub(scale).filter(|below| *below <= REACH);
        let below = below.expect("a scale that shares this reference");
        let number = VALUES[usize::from(nibble & 15)] * 2f32.powi(1 - i32::from(below));
        let (bits, sign) = (number.abs().to_bits(), u8::from(number.is_sign_negative()) << 7);
        let exponent = (bits >> 23) as i32 - 127;
        sign | if exponent < LEAST_EXPONENT {
            (number.abs() * OF_SMALLEST) as u8
        } else {
            ((exponent + BIAS) as u8) << 2 | (bits >> 21 & 3) as u8
        }
    }

    /// A code's number, by its formula in f64.
    fn number(code: u8) -> f64 {
        let (exponent, mantissa) = (i32::from(code >> 2 & 31), f64::from(code & 3));
        let magnitude = match exponent {
            0 => mantissa * 2f64.powi(-16),
            exponent => (1.0 + mantissa / 4.0) * 2f64.powi(exponent - 15),
        };
        if code & 0x80 == 0 { magnitude } else { -magnitude }
    }

    #[test]
    fn every_number_within_reach_is_exact() {
        for reference in [LEAST_REFERENCE, 100, 128, 254] {
            for nibble in 0..16 {
                for at in reference - REACH..=reference {
                    let exact = f64::from(VALUES[usize::from(nibble)]) * f64::from(scale(at));
                    let held = number(in_e5m2(nibble, at, reference)) * 2f64.powi(i32::from(reference) - 128);
                    assert_eq!(held.to_bits(), exact.to_bits(), "{nibble} at {at} under {reference}");
                }
            }
        }
    }

    #[test]
    fn the_smallest_number_one_step_below_would_be_lost() {
        assert_eq!(in_e5m2(1, 100 - REACH, 100), 1, "the smallest there is");
        let below = std::panic::catch_unwind(|| in_e5m2(1, 100 - REACH - 1, 100));
        assert!(below.is_err());
    }

    #[test]
    fn scales_of_a_span_of_16_share_a_reference_and_of_17_none() {
        assert_eq!(reference([100, 116, 107]), Some(116));
        assert_eq!(reference([100, 117]), None);
        assert_eq!(reference([120]), Some(120));
        // Below the least reference scales count from that.
        assert_eq!((reference([48, 50]), reference([47, 50])), (Some(LEAST_REFERENCE), None));
    }
}
