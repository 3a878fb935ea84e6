//! NF4: bit-exact decoding and nibbles, code books, double quantization, wrong lengths.

use descant_quant::nf4::{
    BLOCK, NESTED_BLOCK, Packed, Precision, QUANT_MAP, Scales, Stack, Stacked, decode, dynamic_map, encode,
    unsigned_dynamic_map,
};
use descant_quant::{Error, Result};
use proptest::prelude::*;
use safetensors::SafeTensors;

use crate::golden;

/// The parts of one weight of the golden file.
struct Case {
    source: Vec<f32>,
    packed: Vec<u8>,
    codes: Vec<u8>,
    nested_absmax: Vec<f32>,
    quant_map: Vec<f32>,
    nested_map: Vec<f32>,
    nested_offset: f32,
    dequantized: Vec<f32>,
}

impl Case {
    fn scales(&self) -> Scales<'_> {
        Scales {
            codes: &self.codes,
            nested_absmax: &self.nested_absmax,
            nested_map: &self.nested_map,
            nested_offset: self.nested_offset,
        }
    }
}

fn case(name: &str) -> Case {
    let raw = golden::read("bnb/nf4_double_quant.safetensors");
    let file = SafeTensors::deserialize(&raw).unwrap();
    let part = |part: &str| format!("{name}.{part}");
    let state = golden::bytes(&file, &part("weight.quant_state.bitsandbytes__nf4"));
    let state = String::from_utf8(state).unwrap();
    let (_, offset) = state.split_once("\"nested_offset\": ").unwrap();
    Case {
        source: golden::brain_floats(&file, &part("src")),
        packed: golden::bytes(&file, &part("weight")),
        codes: golden::bytes(&file, &part("weight.absmax")),
        nested_absmax: golden::floats(&file, &part("weight.nested_absmax")),
        quant_map: golden::floats(&file, &part("weight.quant_map")),
        nested_map: golden::floats(&file, &part("weight.nested_quant_map")),
        nested_offset: offset.trim_end_matches('}').parse().unwrap(),
        dequantized: golden::brain_floats(&file, &part("dequant")),
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

impl Case {
    fn packed(&self) -> Packed<'_> {
        Packed {
            packed: &self.packed,
            codes: &self.codes,
            nested_absmax: &self.nested_absmax,
            nested_offset: self.nested_offset,
            levels: &self.quant_map,
            map: &self.nested_map,
        }
    }
}

#[test]
fn a_stack_decodes_to_the_bits_of_the_golden_file() -> Result<()> {
    for name in ["a", "b"] {
        let case = case(name);
        // Another matrix of the same shape before it, so that nothing is found at the beginning by chance.
        let (codes, nested) = (vec![7; case.codes.len()], vec![0.5; case.nested_absmax.len()]);
        let packed = vec![0x1f; case.packed.len()];
        let other = Packed {
            packed: &packed,
            codes: &codes,
            nested_absmax: &nested,
            nested_offset: 3.0,
            ..case.packed()
        };
        let stack = Stack::new(&[other, case.packed()])?;
        assert_eq!(stack.tables.len(), Stack::table_len(2, case.codes.len()));
        let mut values = vec![0.0; case.source.len()];
        stack.view().decode(2, 1, 0, &mut values);
        assert_eq!(bits(&values), bits(&case.dequantized), "{name}");
        // From a block in the middle on.
        let (first, n) = (case.codes.len() / 2 + 1, 3 * BLOCK);
        stack.view().decode(2, 1, first, &mut values[..n]);
        assert_eq!(bits(&values[..n]), bits(&case.dequantized[first * BLOCK..][..n]), "{name}");
        stack.view().decode(2, 0, 0, &mut values);
        assert_ne!(bits(&values), bits(&case.dequantized), "{name}: the other matrix");
    }
    Ok(())
}

#[test]
fn a_stack_in_pieces_is_the_stack() -> Result<()> {
    let case = case("a");
    let reversed: Vec<u8> = case.packed.iter().rev().copied().collect();
    let other = Packed { packed: &reversed, nested_offset: 0.25, ..case.packed() };
    let matrices = [case.packed(), other, case.packed()];
    let whole = Stack::new(&matrices)?;
    // What a stack is, said once more.
    let turned = |bytes: &[u8]| bytes.iter().map(|byte| byte.rotate_left(4)).collect::<Vec<u8>>();
    let expected = [&*case.packed, &reversed, &case.packed].map(turned).concat();
    assert!(whole.blocks == expected && whole.scales == [&*case.codes; 3].concat());
    let stacked = Stacked::new(matrices.to_vec())?;
    assert_eq!(stacked.tables(), whole.tables);
    // Pieces that end within a matrix, at its end, and beyond it.
    for piece in [1000, case.packed.len(), case.packed.len() + 7, expected.len()] {
        let mut blocks = vec![0; stacked.blocks_len()];
        blocks.chunks_mut(piece).enumerate().for_each(|(n, out)| stacked.copy_blocks(n * piece, out));
        assert!(blocks == expected, "pieces of {piece}");
        let mut scales = vec![0; stacked.scales_len()];
        scales.chunks_mut(piece).enumerate().for_each(|(n, out)| stacked.copy_scales(n * piece, out));
        assert!(scales == whole.scales, "pieces of {piece}");
    }
    Ok(())
}

#[test]
fn a_bound_of_scales_is_one_and_refuses_what_decoding_refuses() -> Result<()> {
    for name in ["a", "b"] {
        let case = case(name);
        let bound = case.scales().bound()?;
        let largest = case.scales().decode()?.into_iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        assert!(bound >= largest && bound < 4.0 * largest, "{name}: {bound} of {largest}");
    }
    let case = case("a");
    // Too large only for a code that no block has: every scale is a number, and the largest of them is the bound.
    let mut map = case.nested_map.clone();
    let unused = (0..=255u8).find(|code| !case.codes.contains(code)).expect("192 codes of 256");
    map[usize::from(unused)] = f32::MAX;
    let nested = vec![2.0; case.nested_absmax.len()];
    let wide = Scales { nested_map: &map, nested_absmax: &nested, ..case.scales() };
    let largest = wide.decode()?.into_iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    assert_eq!(wide.bound(), Ok(largest));
    // And for one that a block has.
    let mut map = map.clone();
    map[usize::from(case.codes[3])] = f32::MAX;
    let broken = Scales { nested_map: &map, ..wide };
    assert!(broken.bound().is_err() && broken.bound() == broken.decode().map(|_| 0.0));
    Ok(())
}

#[test]
fn matrices_that_do_not_fit_together_are_no_stack() {
    let (a, b) = (case("a"), case("b"));
    assert_eq!(Stack::new(&[]), Err(Error::Books));
    let length = |part, expected, actual| Err(Error::Length { part, expected, actual });
    assert_eq!(Stack::new(&[a.packed(), b.packed()]), length("absmax", 192, 5120));
    let levels = a.quant_map.iter().map(|x| x * 2.0).collect::<Vec<_>>();
    assert_eq!(Stack::new(&[a.packed(), Packed { levels: &levels, ..a.packed() }]), Err(Error::Books));
    let short = Packed { packed: &a.packed[1..], ..a.packed() };
    assert_eq!(Stack::new(&[short]), length("weight", 6144, 6143));
    let nested = Packed { nested_absmax: &[], ..a.packed() };
    assert_eq!(Stack::new(&[nested]), length("nested_absmax", 1, 0));
    let infinite = Packed { nested_offset: f32::INFINITY, ..a.packed() };
    assert!(matches!(Stack::new(&[infinite]), Err(Error::NonFinite { part: "table", index: 272, .. })));
}

#[test]
fn decoding_is_bit_exact_against_the_golden_file() -> Result<()> {
    for name in ["a", "b"] {
        let case = case(name);
        let scales = case.scales().decode()?;
        let mut out = vec![f32::NAN; case.dequantized.len()];
        decode(&case.packed, &scales, &case.quant_map, Precision::Bf16, &mut out)?;
        assert_eq!(bits(&out), bits(&case.dequantized), "{name}");
        // Controls: the other nibble order, and no offset, are other numbers.
        let swapped: Vec<u8> = case.packed.iter().map(|b| b.rotate_left(4)).collect();
        decode(&swapped, &scales, &case.quant_map, Precision::Bf16, &mut out)?;
        assert_ne!(bits(&out), bits(&case.dequantized), "{name}");
        let scales = Scales { nested_offset: 0.0, ..case.scales() }.decode()?;
        decode(&case.packed, &scales, &case.quant_map, Precision::Bf16, &mut out)?;
        assert_ne!(bits(&out), bits(&case.dequantized), "{name}");
    }
    Ok(())
}

#[test]
fn both_code_books_are_bit_exact() {
    let case = case("b");
    assert_eq!(bits(&QUANT_MAP), bits(&case.quant_map));
    assert_eq!(bits(&dynamic_map()), bits(&case.nested_map));
    assert_eq!((dynamic_map()[127], dynamic_map()[255]), (0.0, 1.0));
}

/// Numbers of `create_dynamic_map(signed=False)`: 1e-6 times the middles of the halves of [0.1, 1], the next decade's
/// first, and the last of 128 parts.
#[test]
fn the_unsigned_map_has_twice_the_steps() {
    let map = unsigned_dynamic_map();
    assert!(map.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!((map[0], map[255]), (0.0, 1.0));
    let step = 0.9 / 128.0;
    for (code, expected) in
        [(1, 3.25e-7), (2, 7.75e-7), (3, 2.125e-6), (127, 0.1 + step / 2.0), (254, 1.0 - step / 2.0)]
    {
        let off = f64::from(map[code]) - expected;
        assert!(off.abs() < 1e-6 * expected, "code {code} is {}, not {expected}", map[code]);
    }
}

#[test]
fn encoding_gives_the_golden_nibbles_and_nested_scales() -> Result<()> {
    for name in ["a", "b"] {
        let case = case(name);
        let encoded = encode(&case.source)?;
        assert_eq!(encoded.packed, case.packed, "{name}");
        assert_eq!(bits(&encoded.nested_absmax), bits(&case.nested_absmax), "{name}");
        assert_eq!(encoded.nested_offset.to_bits(), case.nested_offset.to_bits(), "{name}");
        assert_eq!(encoded.codes.len(), case.codes.len());
        for (block, (&ours, &theirs)) in encoded.codes.iter().zip(&case.codes).enumerate() {
            if ours != theirs {
                let largest =
                    case.source[block * BLOCK..][..BLOCK].iter().fold(0.0_f32, |m, x| m.max(x.abs()));
                let x = (largest - case.nested_offset) / case.nested_absmax[block / NESTED_BLOCK];
                let middle = f32::midpoint(dynamic_map()[ours as usize], dynamic_map()[theirs as usize]);
                assert_eq!(ours.abs_diff(theirs), 1, "{name} block {block}");
                assert!(
                    (x - middle).abs() < 1e-5,
                    "{name} block {block}: {x} is not between {ours} and {theirs}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn the_precision_of_the_source_decides_the_rounding() -> Result<()> {
    let scale = 1.234_567_9;
    for (precision, want) in [
        (Precision::F32, QUANT_MAP[9] * scale),
        (Precision::Bf16, half::bf16::from_f32(QUANT_MAP[9] * scale).to_f32()),
        (Precision::F16, half::f16::from_f32(QUANT_MAP[9] * scale).to_f32()),
    ] {
        let mut out = [0.0];
        decode(&[0x97], &[scale], &QUANT_MAP, precision, &mut out)?;
        assert_eq!(out[0].to_bits(), want.to_bits(), "{precision:?}");
    }
    Ok(())
}

#[test]
fn wrong_lengths_and_broken_scales_are_named() {
    let map = dynamic_map();
    let good = Scales { codes: &[0; 257], nested_absmax: &[1.0, 1.0], nested_map: &map, nested_offset: 0.0 };
    let length = |part, expected, actual| Error::Length { part, expected, actual };
    let error = |scales: Scales<'_>| scales.decode().unwrap_err();
    assert!(good.decode().is_ok());
    assert_eq!(error(Scales { nested_absmax: &[1.0], ..good }), length("nested_absmax", 2, 1));
    assert_eq!(error(Scales { nested_map: &map[..255], ..good }), length("nested_quant_map", 256, 255));
    for bad in [f32::NAN, f32::INFINITY] {
        let text = error(Scales { nested_offset: bad, ..good }).to_string();
        assert!(text.starts_with("nested_offset 0 is"), "{text}");
        let text = error(Scales { nested_absmax: &[1.0, bad], ..good }).to_string();
        assert!(text.starts_with("nested_absmax 1 is"), "{text}");
    }
    let overflow = Scales { codes: &[255], nested_absmax: &[f32::MAX], nested_offset: f32::MAX, ..good };
    assert!(error(overflow).to_string().starts_with("scale 0 is inf"));

    let decode = |packed: usize, scales: usize, map: usize, out: usize| {
        let (packed, scales, map) = (vec![0; packed], vec![1.0; scales], vec![0.0; map]);
        decode(&packed, &scales, &map, Precision::F32, &mut vec![0.0; out])
    };
    assert_eq!(decode(33, 2, 16, 66), Ok(()));
    assert_eq!(decode(33, 2, 16, 65), Ok(()));
    assert_eq!(decode(33, 2, 16, 64), Err(length("weight", 32, 33)));
    assert_eq!(decode(33, 1, 16, 65), Err(length("absmax", 2, 1)));
    assert_eq!(decode(33, 2, 15, 65), Err(length("quant_map", 16, 15)));
    let error = encode(&[0.0, f32::NAN]).unwrap_err();
    assert!(matches!(error, Error::NonFinite { part: "value", index: 1, .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::CASES, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the length, a decoded number is within half of the widest gap of the code book, times its block's
    /// scale, plus what rounding the scale cost.
    #[test]
    fn what_is_packed_comes_back_within_half_a_gap(
        values in proptest::collection::vec(-3.0_f32..3.0, 0..if cfg!(miri) { 400 } else { 40_000 }),
    ) {
        let encoded = encode(&values).unwrap();
        let map = dynamic_map();
        let scales = Scales {
            codes: &encoded.codes,
            nested_absmax: &encoded.nested_absmax,
            nested_map: &map,
            nested_offset: encoded.nested_offset,
        }
        .decode()
        .unwrap();
        let mut out = vec![f32::NAN; values.len()];
        decode(&encoded.packed, &scales, &QUANT_MAP, Precision::F32, &mut out).unwrap();
        for (block, (values, out)) in values.chunks(BLOCK).zip(out.chunks(BLOCK)).enumerate() {
            let absmax = values.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
            let lost = (scales[block] - absmax).abs();
            for (x, y) in values.iter().zip(out) {
                prop_assert!((x - y).abs() <= 0.152 * absmax + lost + 1e-6, "{} became {}", x, y);
            }
        }
    }
}
