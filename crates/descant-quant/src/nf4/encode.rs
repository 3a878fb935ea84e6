//! f32 to NF4 with double quantization.
//!
//! Nibbles: `x / absmax` is compared with the fifteen midpoints of bitsandbytes; on a midpoint the lower code wins.
//! Scales: the mean is taken away (summed in f64), the rest goes to the nearest code of the dynamic map, the lower
//! one where two are equally near. bitsandbytes looks nearest codes up less exactly, so that its choice between two
//! neighbours may differ from ours within 1e-5 of their middle; nibbles are the same.

use super::{BLOCK, NESTED_BLOCK, dynamic_map};
use crate::error::{Result, check_finite};

/// Where the nearest NF4 code changes.
const MIDPOINTS: [f32; 15] = [
    -0.848_096_4,
    -0.610_632_9,
    -0.459_995_27,
    -0.339_679_42,
    -0.234_607_4,
    -0.137_911_74,
    -0.045_525_02,
    0.039_790_15,
    0.120_255_25,
    0.203_521_25,
    0.292_013_76,
    0.389_312_54,
    0.501_663_45,
    0.642_786_9,
    0.861_478_45,
];
/// The nibble of 0, which pads an odd number of elements.
const ZERO: u8 = 7;

/// A packed weight, in the parts that bitsandbytes saves; the maps are [`QUANT_MAP`](super::QUANT_MAP) and
/// [`dynamic_map`].
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// `weight`
    pub packed: Vec<u8>,
    /// `absmax`
    pub codes: Vec<u8>,
    /// `nested_absmax`
    pub nested_absmax: Vec<f32>,
    /// `nested_offset`
    pub nested_offset: f32,
}

/// Packs a weight, given flat in row-major order.
///
/// # Errors
/// A value is not finite.
pub fn encode(values: &[f32]) -> Result<Encoded> {
    check_finite("value", values)?;
    let absmax: Vec<f32> = values.chunks(BLOCK).map(largest).collect();
    let (codes, nested_absmax, nested_offset) = encode_scales(&absmax);
    Ok(Encoded { packed: encode_nibbles(values, &absmax), codes, nested_absmax, nested_offset })
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

/// `x / by`, where a block of zeros stays zeros.
fn normalize(x: f32, by: f32) -> f32 {
    if by > 0.0 { x / by } else { 0.0 }
}

fn encode_nibbles(values: &[f32], absmax: &[f32]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(values.len().div_ceil(2));
    for (block, &absmax) in values.chunks(BLOCK).zip(absmax) {
        let nibble = |&x: &f32| MIDPOINTS.partition_point(|&middle| middle < normalize(x, absmax)) as u8;
        packed.extend(block.chunks(2).map(|pair| nibble(&pair[0]) << 4 | pair.get(1).map_or(ZERO, nibble)));
    }
    packed
}

fn encode_scales(absmax: &[f32]) -> (Vec<u8>, Vec<f32>, f32) {
    let mean = absmax.iter().map(|&x| f64::from(x)).sum::<f64>() / absmax.len().max(1) as f64;
    let offset = mean as f32;
    let map = dynamic_map();
    let mut codes = Vec::with_capacity(absmax.len());
    let mut nested_absmax = Vec::with_capacity(absmax.len().div_ceil(NESTED_BLOCK));
    for block in absmax.chunks(NESTED_BLOCK) {
        let centred: Vec<f32> = block.iter().map(|x| x - offset).collect();
        let nested = largest(&centred);
        codes.extend(centred.iter().map(|&x| nearest(&map, normalize(x, nested))));
        nested_absmax.push(nested);
    }
    (codes, nested_absmax, offset)
}

/// The code of the sorted `map` whose number is nearest to `x`.
fn nearest(map: &[f32; 256], x: f32) -> u8 {
    let above = map.partition_point(|&y| y < x).min(255);
    let below = above.saturating_sub(1);
    // In f64 both distances are exact.
    let distance = |code: usize| (f64::from(map[code]) - f64::from(x)).abs();
    if distance(below) <= distance(above) { below as u8 } else { above as u8 }
}
