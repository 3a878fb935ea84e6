//! MXFP4: bit-exact decoding, the ends of the scale's range, encoding and its round trips.

use descant_quant::Error;
use descant_quant::mxfp4::{BLOCK, BLOCK_BYTES, decode, encode, validate_scales};
use proptest::prelude::*;
use safetensors::SafeTensors;

use crate::golden;

fn decoded(blocks: &[u8], scales: &[u8]) -> Vec<f32> {
    let mut out = vec![f32::NAN; scales.len() * BLOCK];
    decode(blocks, scales, &mut out);
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn decoding_is_bit_exact_against_the_golden_file() {
    let raw = golden::read("mxfp4/repack.safetensors");
    let file = SafeTensors::deserialize(&raw).unwrap();
    let blocks = golden::bytes(&file, "blocks");
    let scales = golden::bytes(&file, "scales");
    let expected = golden::floats(&file, "dequant_rows_f32");
    assert_eq!(bits(&decoded(&blocks, &scales)), bits(&expected));
    // Control: the other nibble order is another result.
    let swapped: Vec<u8> = blocks.iter().map(|b| b.rotate_left(4)).collect();
    assert_ne!(bits(&decoded(&swapped, &scales)), bits(&expected));
}

/// Every byte under every scale, against the formula in f64, where all of it is exact.
#[test]
fn every_code_under_every_scale_is_the_formula() {
    let codes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0_f64];
    let number = |code: u8| if code < 8 { codes[code as usize] } else { -codes[code as usize - 8] };
    let blocks: Vec<u8> = (0..=255).collect();
    for scale in (0..255).step_by(if cfg!(miri) { 127 } else { 1 }) {
        let out = decoded(&blocks, &[scale; 16]);
        for byte in 0..=255_u8 {
            for (code, got) in [(byte & 15, out[2 * byte as usize]), (byte >> 4, out[2 * byte as usize + 1])]
            {
                let want = (number(code) * 2.0_f64.powi(i32::from(scale) - 127)) as f32;
                assert_eq!(got.to_bits(), want.to_bits(), "scale {scale} code {code}: {got:e} {want:e}");
            }
        }
    }
}

#[test]
fn minus_zero_and_subnormals_survive() {
    let mut block = [0; BLOCK_BYTES];
    block[0] = 0x18; // -0, then 0.5
    let out = decoded(&block, &[0]);
    assert_eq!(out[0].to_bits(), (-0.0_f32).to_bits());
    assert_eq!(out[1].to_bits(), 1 << 21, "0.5 * 2^-127 is the subnormal 2^-128");
}

#[test]
fn the_scale_that_is_not_a_number_is_refused_by_position() {
    assert_eq!(validate_scales(&[0, 127, 254]), Ok(()));
    assert_eq!(validate_scales(&[0, 127, 255, 255]), Err(Error::NanScale { index: 2 }));
    assert!(decoded(&[0x11; BLOCK_BYTES], &[255]).iter().all(|v| v.is_nan()));
}

#[test]
fn lengths_that_disagree_panic() {
    for (blocks, scales, out) in [(16, 1, 31), (15, 1, 32), (16, 2, 64), (0, 0, 1)] {
        let result = std::panic::catch_unwind(|| {
            decode(&vec![0; blocks], &vec![0; scales], &mut vec![0.0; out]);
        });
        assert!(result.is_err(), "{blocks} bytes, {scales} scales, {out} numbers");
    }
    decode(&[], &[], &mut []);
}

#[test]
fn ties_go_to_the_even_code_and_the_rest_to_the_nearest() {
    // 6 pins the scale to 1.
    let cases = [
        (0.25, 0.0),
        (0.26, 0.5),
        (0.75, 1.0),
        (0.74, 0.5),
        (1.25, 1.0),
        (1.75, 2.0),
        (2.5, 2.0),
        (3.5, 4.0),
        (5.0, 4.0),
        (5.1, 6.0),
        (-2.5, -2.0),
        (-3.5, -4.0),
        (-0.1, -0.0),
    ];
    for (value, want) in cases {
        let mut values = [6.0; BLOCK];
        values[7] = value;
        let (mut blocks, mut scales) = ([0; BLOCK_BYTES], [0]);
        encode(&values, &mut blocks, &mut scales).unwrap();
        assert_eq!(scales, [127]);
        assert_eq!(decoded(&blocks, &scales)[7].to_bits(), f32::to_bits(want), "{value}");
    }
}

#[test]
fn the_exponent_is_the_one_with_the_smaller_error() {
    // 7.9 would be clipped to 6 under the exponent of the OCP rule; under the next one it becomes 8.
    let mut values = [0.0; BLOCK];
    values[3] = 7.9;
    let (mut blocks, mut scales) = ([0; BLOCK_BYTES], [0]);
    encode(&values, &mut blocks, &mut scales).unwrap();
    assert_eq!(scales, [128]);
    assert_eq!(decoded(&blocks, &scales)[3].to_bits(), 8.0_f32.to_bits());
    // With many small numbers beside it, clipping the one costs less than coarsening the others.
    let mut values = [0.5; BLOCK];
    values[3] = 6.1;
    encode(&values, &mut blocks, &mut scales).unwrap();
    assert_eq!(scales, [127]);
}

#[test]
fn encoding_refuses_wrong_lengths_and_numbers_that_are_not_finite() {
    let (mut blocks, mut scales) = ([7; BLOCK_BYTES], [7]);
    let length = |part, expected, actual| Err(Error::Length { part, expected, actual });
    assert_eq!(encode(&[0.0; 31], &mut blocks, &mut scales), length("values", 32, 31));
    assert_eq!(encode(&[0.0; 32], &mut [0; 15], &mut scales), length("blocks", 16, 15));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = [1.0; BLOCK];
        values[9] = bad;
        let error = encode(&values, &mut blocks, &mut scales).unwrap_err();
        assert!(matches!(error, Error::NonFinite { part: "value", index: 9, .. }), "{error}");
    }
    assert_eq!((blocks, scales), ([7; BLOCK_BYTES], [7]), "nothing was written");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::CASES, failure_persistence: None, ..ProptestConfig::default() })]

    /// What came from MXFP4 goes back to the same numbers, for every scale whose codes are all finite.
    #[test]
    fn decoded_numbers_come_back_exactly(
        blocks in proptest::collection::vec(any::<u8>(), 3 * BLOCK_BYTES),
        scales in proptest::collection::vec(0..=252_u8, 3),
    ) {
        let values = decoded(&blocks, &scales);
        let (mut again, mut scales_again) = (vec![0; blocks.len()], vec![0; 3]);
        encode(&values, &mut again, &mut scales_again).unwrap();
        prop_assert_eq!(bits(&decoded(&again, &scales_again)), bits(&values));
    }

    /// No number is further away than the format's coarsest step at its block's scale, and none becomes infinite.
    #[test]
    fn the_error_is_bounded_by_the_blocks_largest_number(
        values in proptest::collection::vec(proptest::num::f32::NORMAL | proptest::num::f32::SUBNORMAL, BLOCK),
    ) {
        let (mut blocks, mut scales) = ([0; BLOCK_BYTES], [0]);
        encode(&values, &mut blocks, &mut scales).unwrap();
        let largest = values.iter().fold(0.0_f64, |m, v| m.max(f64::from(v.abs())));
        let out = decoded(&blocks, &scales);
        for (value, out) in values.iter().zip(&out) {
            prop_assert!(out.is_finite());
            // 8 clipped to 6 loses a quarter of the largest; the smallest scale rounds to 2^-129.
            let error = (f64::from(*value) - f64::from(*out)).abs();
            prop_assert!(error <= largest / 4.0 + 2.0_f64.powi(-129), "{} became {}", value, out);
        }
    }
}
