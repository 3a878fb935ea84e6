//! Codecs and packing: properties that must hold for every input.

use descant_harmony::pack::best_fit;
use descant_quant::mxfp4;

use super::Opened;

pub(super) fn packing() -> Opened {
    let door = |bytes: &[u8]| {
        let Some((&capacity, lengths)) = bytes.split_first() else { return };
        let (capacity, lengths) = (usize::from(capacity) + 1, lengths.iter().map(|n| usize::from(*n)));
        let lengths: Vec<usize> = lengths.collect();
        let Ok(bins) = best_fit(&lengths, capacity) else {
            assert!(lengths.iter().any(|length| *length > capacity), "refused without a reason");
            return;
        };
        let mut seen: Vec<usize> = bins.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..lengths.len()), "every document once");
        assert!(bins.iter().all(|bin| bin.iter().map(|at| lengths[*at]).sum::<usize>() <= capacity));
    };
    (Box::new(door), vec![vec![9, 3, 4, 5, 2, 2, 7], vec![255, 200, 100, 55, 1]])
}

pub(super) fn mxfp4() -> Opened {
    let door = |bytes: &[u8]| {
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let n = values.len() / mxfp4::BLOCK;
        let values = &values[..n * mxfp4::BLOCK];
        let (mut blocks, mut scales) = (vec![0; n * mxfp4::BLOCK_BYTES], vec![0; n]);
        if mxfp4::encode(values, &mut blocks, &mut scales).is_err() {
            assert!(values.iter().any(|value| !value.is_finite()), "refused without a reason");
            return;
        }
        let mut decoded = vec![0.0; values.len()];
        mxfp4::decode(&blocks, &scales, &mut decoded);
        // The exponent is that of least squared error, so no block is worse than by the OCP rule, under which half the
        // widest step between codes below 6 is missed, and beyond that what is cut from 8 to 6.
        for (values, decoded) in values.as_chunks::<32>().0.iter().zip(decoded.as_chunks::<32>().0) {
            let missed = |(value, decoded): (&f32, &f32)| (f64::from(*value) - f64::from(*decoded)).powi(2);
            let error: f64 = values.iter().zip(decoded).map(missed).sum();
            let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let exponent = ((largest.to_bits() >> 23) as i32 - 127 - 2).max(-127);
            let most = 32.0 * (2.0 * f64::from(exponent).exp2()).powi(2);
            assert!(error <= most * 1.000_001, "{values:?} became {decoded:?}");
        }
        // What came from the format goes through it unchanged.
        let (mut again, mut scales_again) = (blocks.clone(), scales.clone());
        mxfp4::encode(&decoded, &mut again, &mut scales_again).expect("decoded numbers are finite");
        let mut twice = vec![0.0; decoded.len()];
        mxfp4::decode(&again, &scales_again, &mut twice);
        assert!(decoded.iter().zip(&twice).all(|(a, b)| a.to_bits() == b.to_bits()));
    };
    let ramp: Vec<u8> = (0..32).flat_map(|n| (n as f32 * 0.3 - 4.0).to_le_bytes()).collect();
    (Box::new(door), vec![ramp, vec![0; 128]])
}
