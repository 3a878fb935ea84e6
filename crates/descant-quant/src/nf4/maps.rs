//! The two code books of bitsandbytes.

/// The numbers of the NF4 codes: quantiles of a normal distribution, scaled to [-1, 1].
///
/// Spelled to the digits that give bitsandbytes' own bits.
pub const QUANT_MAP: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Decades of the dynamic map, 1e-6 to 1.
const DECADES: i32 = 7;

/// The signed dynamic 8-bit map, sorted: in each decade `10^-6 ..= 1` twice as many steps as in the one below, at
/// the middles of equal parts of [0.1, 1] of it, with both signs; then 0 and 1. Code 127 is 0, code 255 is 1.
///
/// Reference: `create_dynamic_map` of bitsandbytes, whose bits depend on how torch spaces points: fused
/// multiply-add from the nearer end, in f32.
pub fn dynamic_map() -> [f32; 256] {
    let mut map = [0.0; 256];
    let magnitudes = magnitudes(1);
    for (pair, magnitude) in map.chunks_exact_mut(2).zip(magnitudes) {
        pair.copy_from_slice(&[magnitude, -magnitude]);
    }
    // 254 entries so far; the 255th stays 0.
    map[255] = 1.0;
    map.sort_by(f32::total_cmp);
    map
}

/// The unsigned dynamic 8-bit map, sorted: as [`dynamic_map`] with twice the steps in every decade and no signs. Code 0
/// is 0, code 255 is 1. bitsandbytes keeps second moments in it.
pub fn unsigned_dynamic_map() -> [f32; 256] {
    let mut map = [0.0; 256];
    for (entry, magnitude) in map[1..].iter_mut().zip(magnitudes(2)) {
        *entry = magnitude;
    }
    map[255] = 1.0;
    map
}

/// The middles of all decades, rising; the lowest decade has `parts` of them.
fn magnitudes(parts: u16) -> impl Iterator<Item = f32> {
    (0..DECADES).flat_map(move |decade| {
        let parts = parts << decade;
        let unit = 10.0_f64.powi(decade - DECADES + 1) as f32;
        (0..parts).map(move |part| unit * f32::midpoint(boundary(part, parts), boundary(part + 1, parts)))
    })
}

/// Point `index` of `parts + 1` that divide [0.1, 1] evenly.
fn boundary(index: u16, parts: u16) -> f32 {
    let step = (1.0_f32 - 0.1) / f32::from(parts);
    if index < parts.div_ceil(2) {
        step.mul_add(f32::from(index), 0.1)
    } else {
        (-step).mul_add(f32::from(parts - index), 1.0)
    }
}
