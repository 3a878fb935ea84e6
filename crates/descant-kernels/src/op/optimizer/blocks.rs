//! AdamW with 8-bit moments on slices, a block of 256 elements at a time.
//!
//! As bitsandbytes keeps them: a block has the largest magnitude of its elements, and an element is the nearest of the
//! map's 256 numbers times it. Other than there, a second moment that is not zero never becomes zero: with a zero
//! denominator, one step without gradient could move a weight by any amount.

use descant_quant::nf4::{dynamic_map, unsigned_dynamic_map};
use rayon::prelude::*;

use super::numbers::StepNumbers;

/// Elements that share a scale.
pub(crate) const BLOCK: usize = 256;

/// Code of zero in the signed map; in the unsigned one it is 0.
pub(super) const ZERO_FIRST: u8 = 127;

/// The numbers of the codes, and the middles between neighbours.
pub(super) struct Map {
    numbers: [f32; 256],
    middles: [f32; 255],
    zero: u8,
}

impl Map {
    /// For first moments.
    pub(super) fn signed() -> Self {
        Self::new(&dynamic_map(), ZERO_FIRST)
    }

    /// For second moments.
    pub(super) fn unsigned() -> Self {
        Self::new(&unsigned_dynamic_map(), 0)
    }

    fn new(numbers: &[f32; 256], zero: u8) -> Self {
        Self {
            numbers: *numbers,
            middles: std::array::from_fn(|i| (numbers[i] + numbers[i + 1]) * 0.5),
            zero,
        }
    }

    fn decode(&self, code: u8, scale: f32) -> f32 {
        self.numbers[usize::from(code)] * scale
    }

    /// The nearest code of `x` in a block of this scale, the lower one in the middle between two.
    fn encode(&self, x: f32, scale: f32) -> u8 {
        if scale > 0.0 {
            let x = x / scale;
            // At most 255, the number of middles.
            self.middles.partition_point(|middle| *middle < x) as u8
        } else {
            self.zero
        }
    }
}

/// A step with the gradients scaled by `factor`.
pub(super) struct Block<'a> {
    pub(super) factor: f32,
    pub(super) numbers: StepNumbers,
    pub(super) maps: &'a [Map; 2],
}

impl Block<'_> {
    /// All blocks of a tensor.
    pub(super) fn step_all(
        &self,
        params: &mut [f32],
        grads: &[f32],
        [codes1, codes2]: [&mut [u8]; 2],
        [scales1, scales2]: [&mut [f32]; 2],
    ) {
        let codes = codes1.par_chunks_mut(BLOCK).zip(codes2.par_chunks_mut(BLOCK));
        let scales = scales1.par_iter_mut().zip(scales2.par_iter_mut());
        params
            .par_chunks_mut(BLOCK)
            .zip(grads.par_chunks(BLOCK))
            .zip(codes.zip(scales))
            .for_each(|((params, grads), (codes, scales))| self.step(params, grads, codes, scales));
    }

    fn step(
        &self,
        params: &mut [f32],
        grads: &[f32],
        (codes1, codes2): (&mut [u8], &mut [u8]),
        (scale1, scale2): (&mut f32, &mut f32),
    ) {
        let StepNumbers { beta1, beta2, correction2, epsilon, keep, rate } = self.numbers;
        let (rest1, rest2) = ((1.0 - beta1) as f32, (1.0 - beta2) as f32);
        let (beta1, beta2, correction2) = (beta1 as f32, beta2 as f32, correction2 as f32);
        let (epsilon, keep, rate) = (epsilon as f32, keep as f32, rate as f32);
        let (mut first, mut second) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
        let (mut top1, mut top2) = (0.0f32, 0.0f32);
        for (i, (param, grad)) in params.iter_mut().zip(grads).enumerate() {
            let grad = grad * self.factor;
            first[i] = self.maps[0].decode(codes1[i], *scale1) * beta1 + grad * rest1;
            second[i] = self.maps[1].decode(codes2[i], *scale2) * beta2 + grad * grad * rest2;
            top1 = top1.max(first[i].abs());
            top2 = top2.max(second[i]);
            let denominator = second[i].sqrt() / correction2 + epsilon;
            *param = *param * keep - first[i] / denominator * rate;
        }
        for i in 0..params.len() {
            codes1[i] = self.maps[0].encode(first[i], top1);
            codes2[i] = self.maps[1].encode(second[i], top2).max(u8::from(second[i] > 0.0));
        }
        (*scale1, *scale2) = (top1, top2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_the_nearest_of_its_own_number() {
        for map in [Map::signed(), Map::unsigned()] {
            for code in 0..=255u8 {
                assert_eq!(map.encode(map.decode(code, 0.375), 0.375), code);
            }
            assert_eq!(map.decode(map.zero, 5.0).to_bits(), 0.0f32.to_bits());
            assert!(map.numbers.windows(2).all(|n| n[0] < n[1]), "the map is sorted");
        }
    }

    #[test]
    fn a_code_is_nearer_than_its_neighbours() {
        let map = Map::signed();
        for i in 0..2000 {
            let x = (i as f32 * 0.7531).sin() * 10f32.powi(-(i % 7));
            let code = usize::from(map.encode(x, 1.0));
            let off = |code: usize| (map.numbers[code] - x).abs();
            assert!(code == 0 || off(code) <= off(code - 1), "{x} {code}");
            assert!(code == 255 || off(code) <= off(code + 1), "{x} {code}");
        }
    }

    #[test]
    fn a_second_moment_beside_a_huge_one_does_not_vanish() {
        let numbers =
            StepNumbers { beta1: 0.9, beta2: 0.999, correction2: 1.0, epsilon: 1e-8, keep: 1.0, rate: 1e-3 };
        let maps = [Map::signed(), Map::unsigned()];
        let step = Block { factor: 1.0, numbers, maps: &maps };
        let (mut params, mut codes1, mut codes2) = ([0.0f32; 2], [ZERO_FIRST; 2], [0u8; 2]);
        let (mut scale1, mut scale2) = (0.0, 0.0);
        let mut run = |params: &mut [f32], grads: &[f32]| {
            step.step(params, grads, (&mut codes1, &mut codes2), (&mut scale1, &mut scale2));
            codes2[1]
        };
        assert_eq!(run(&mut params, &[1.0, 1e-4]), 1);
        let before = params[1];
        run(&mut params, &[0.0, 0.0]);
        // With a zero second moment the denominator would be epsilon, and the move 0.9 * 1e-5 / 1e-8 * 1e-3 = 0.9.
        assert!((params[1] - before).abs() < 1e-2, "{before} became {}", params[1]);
    }
}
