//! E4M3, a float of eight bits: sign, four exponent bits (bias 7), three mantissa bits; no infinities, and one code of each
//! sign that is not a number.
//!
//! ```text
//! exponent 0        mantissa · 2^-9             2^-9 is the smallest
//! exponent 1..15    (1 + mantissa / 8) · 2^(exponent - 7)
//! 0x7e              448, the largest; 0x7f is not a number
//! ```
//!
//! The definition of the rows that kernels write and multiply where experts' products are in fp8. Nothing is stored in it:
//! a row of activations has a factor of its own, for as long as a product takes.

/// The largest number.
pub const LARGEST: f32 = 448.0;
/// A row whose largest magnitude is below this is a row of zeros: its factor would not be a normal number.
pub const LEAST_ROW: f32 = 1e-30;

/// Its code, and that of what is larger.
const LARGEST_CODE: u8 = 0x7e;
const NAN_CODE: u8 = 0x7f;
const SIGN: u8 = 0x80;
/// Mantissa bits that f32 has more.
const CUT: u32 = 20;
/// Added to an exponent in f32 less what is added in E4M3, in units of the last mantissa bit of E4M3.
const REBIAS: u32 = (127 - 7) << 3;
/// The smallest number with an implied one, 2^-6, and how many of the smallest number make one.
const LEAST_NORMAL: f32 = 0.015_625;
const OF_SMALLEST: f32 = 512.0;

/// The number of a code.
pub fn decode(code: u8) -> f32 {
    let (exponent, mantissa) = (code >> 3 & 15, code & 7);
    let magnitude = match (exponent, mantissa) {
        (15, 7) => f32::NAN,
        (0, mantissa) => f32::from(mantissa) / OF_SMALLEST,
        _ => f32::from_bits((u32::from(code & !SIGN) + REBIAS) << CUT),
    };
    if code & SIGN == 0 { magnitude } else { -magnitude }
}

/// The code of the nearest number; of two that are as near, the one with an even mantissa. What is larger than the largest
/// becomes that, with its sign.
pub fn encode(x: f32) -> u8 {
    let (sign, magnitude) = (if x.is_sign_negative() { SIGN } else { 0 }, x.abs());
    sign | if magnitude.is_nan() {
        NAN_CODE
    } else if magnitude >= LARGEST {
        LARGEST_CODE
    } else if magnitude < LEAST_NORMAL {
        // Rounds up to the smallest with an implied one, whose code follows.
        (magnitude * OF_SMALLEST).round_ties_even() as u8
    } else {
        let bits = magnitude.to_bits();
        let even = bits >> CUT & 1;
        let rounded = (bits + (1 << (CUT - 1)) - 1 + even) >> CUT;
        ((rounded - REBIAS) as u8).min(LARGEST_CODE)
    }
}

/// Codes of a row, and the factor that they are multiplied with: the largest magnitude becomes the largest number.
///
/// # Panics
/// `out` has another length.
pub fn encode_row(row: &[f32], out: &mut [u8]) -> f32 {
    assert_eq!(row.len(), out.len(), "a code for each number");
    let largest = row.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let (up, factor) = if largest < LEAST_ROW { (1.0, 1.0) } else { (LARGEST / largest, largest / LARGEST) };
    for (code, x) in out.iter_mut().zip(row) {
        *code = encode(x * up);
    }
    factor
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The 127 numbers that are not negative, by their formula in f64.
    fn numbers() -> Vec<f64> {
        let number = |code: i32| match (code >> 3, code & 7) {
            (0, mantissa) => f64::from(mantissa) * 2f64.powi(-9),
            (exponent, mantissa) => (1.0 + f64::from(mantissa) / 8.0) * 2f64.powi(exponent - 7),
        };
        (0..127).map(number).collect()
    }

    #[test]
    fn every_code_is_its_formula_and_comes_back() {
        for (code, number) in (0_u8..).zip(numbers()) {
            assert_eq!(f64::from(decode(code)).to_bits(), number.to_bits(), "{code}");
            assert_eq!(f64::from(decode(code | SIGN)).to_bits(), (-number).to_bits(), "{code}");
            assert_eq!((encode(decode(code)), encode(decode(code | SIGN))), (code, code | SIGN));
        }
        assert!(decode(0x7f).is_nan() && decode(0xff).is_nan());
        assert_eq!((encode(f32::NAN) & 0x7f, decode(LARGEST_CODE)), (NAN_CODE, LARGEST));
    }

    #[test]
    fn between_two_numbers_the_nearer_is_taken_and_of_two_the_even_one() {
        let numbers = numbers();
        for (code, pair) in (0_u8..).zip(numbers.windows(2)) {
            // A middle has five significant bits: f32 holds it, and its neighbours.
            let middle = f64::midpoint(pair[0], pair[1]) as f32;
            let even = if code % 2 == 0 { code } else { code + 1 };
            for (x, expected) in [
                (middle.next_down(), code),
                (middle, even),
                (middle.next_up(), code + 1),
                ((pair[0] as f32).next_up(), code),
                ((pair[1] as f32).next_down(), code + 1),
            ] {
                assert_eq!((encode(x), encode(-x)), (expected, expected | SIGN), "{x:e} after {code}");
            }
        }
    }

    #[test]
    fn what_is_too_large_becomes_the_largest_and_what_is_too_small_zero() {
        for x in [448.1, 463.9, 464.0, 1e10, f32::MAX, f32::INFINITY] {
            assert_eq!((encode(x), encode(-x)), (LARGEST_CODE, LARGEST_CODE | SIGN), "{x}");
        }
        for x in [0.0, f32::MIN_POSITIVE, 1e-40, 2f32.powi(-10)] {
            assert_eq!((encode(x), encode(-x)), (0, SIGN), "{x:e}");
        }
        assert_eq!(encode(2f32.powi(-10).next_up()), 1);
    }

    #[test]
    fn a_rows_largest_number_is_exact_and_others_lose_a_sixteenth_at_most() {
        let row = [3.0_f32, -0.4, 0.0, 1e-5, -7.0, 0.02];
        let mut codes = [0; 6];
        let factor = encode_row(&row, &mut codes);
        assert_eq!((factor, codes[4]), (7.0 / 448.0, LARGEST_CODE | SIGN));
        for (x, code) in row.into_iter().zip(codes) {
            let error = (decode(code) * factor - x).abs();
            // Half of the smallest number where there is no implied one.
            assert!(error <= (x.abs() / 16.0).max(factor / 1024.0) * 1.000_001, "{x}: {error}");
        }
        let factor = encode_row(&[0.0, -1e-31], &mut codes[..2]);
        assert_eq!((factor.to_bits(), &codes[..2]), (1f32.to_bits(), &[0, SIGN][..]));
    }
}
