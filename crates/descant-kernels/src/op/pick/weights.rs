//! Weights of tokens and random numbers, as integers: what host and card compute to the bit.

/// The exponent of the largest weight.
pub(crate) const ONE: i32 = 40;
/// The scale of top-p.
pub(super) const SHARES: u32 = 63;
/// Bits of a random number.
const BITS: u32 = 53;
pub(super) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// `floor(2^40 · 2^x)` for `x` up to 0; every operation is one of f32, so that a card has the same bits.
pub(super) fn weight(x: f32) -> u64 {
    if x < -(ONE as f32) || x.is_nan() {
        return 0;
    }
    // 2^f for |f| <= 1/2, a polynomial (Cephes, exp2f); f is exact.
    let whole = x.round_ties_even();
    let f = x - whole;
    let mut p = 1.535_336_2e-4_f32;
    for c in [1.339_887_4e-3_f32, 9.618_437e-3, 5.550_332_5e-2, 2.402_264_8e-1, 6.931_472e-1, 1.0] {
        p = p * f + c;
    }
    (p * f32::from_bits(((whole as i32 + ONE + 127) as u32) << 23)) as u64
}

/// `floor(sum · random / 2^53)`
pub(super) fn part(sum: u64, random: u64) -> u64 {
    ((u128::from(sum) * u128::from(random)) >> BITS) as u64
}

/// `ceil(sum · share / 2^63)`
pub(super) fn part_above(sum: u64, share: u64) -> u64 {
    (u128::from(sum) * u128::from(share)).div_ceil(1 << SHARES) as u64
}

/// 53 bits that depend on nothing but key and step (SplitMix64's mixing, Steele et al. 2014).
pub(super) fn random(key: u64, step: u32) -> u64 {
    mix(key ^ mix(u64::from(step).wrapping_add(GOLDEN))) >> (64 - BITS)
}

pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A share in parts of `2^63`, not 0. Exact: a number of f32 up to 1 has no bit below 2^-63 that matters.
pub(super) fn share(of: f32) -> u64 {
    ((f64::from(of) * (1_u64 << SHARES) as f64) as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_the_powers_of_two_to_the_precision_of_f32() {
        assert_eq!((weight(0.0), weight(-1.0), weight(-40.0), weight(-40.1)), (1 << 40, 1 << 39, 1, 0));
        assert_eq!((weight(f32::NEG_INFINITY), weight(f32::NAN)), (0, 0));
        for n in 0..20_000 {
            let x = -(n as f32) / 1000.0;
            let right = f64::from(x).exp2();
            let off = weight(x) as f64 / 2f64.powi(ONE) - right;
            assert!(off.abs() <= right * 3e-7 + 1e-12, "2^{x}: off by {off}");
        }
    }

    #[test]
    fn shares_of_a_sum_are_exact() {
        assert_eq!(
            (part(10, 0), part(10, (1 << 53) - 1), part(u64::MAX >> 6, 1 << 52)),
            (0, 9, u64::MAX >> 7)
        );
        assert_eq!(
            (part_above(10, share(0.5)), part_above(11, share(0.5)), part_above(7, share(1.0))),
            (5, 6, 7)
        );
        assert_eq!(part_above(1 << 40, share(f32::MIN_POSITIVE)), 1, "one token is always kept");
    }
}
