//! The optimizer: f32 moments against plain f64 formulas, 8-bit moments near them, and what a bad norm and an update that
//! is dropped do.

use burn::tensor::{DType, Device, Tensor, TensorData};
use descant_kernels::{
    AdamW, AdamWSpec, Clip, FlatSum, MomentFormat, Moments, accumulate, flattened, grad_norm, reached,
};

use crate::support::{Random, values};

const SPEC: AdamWSpec = AdamWSpec { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };
const RATE: f64 = 2e-3;

fn tensors(random: &mut Random) -> Vec<Tensor<3>> {
    vec![random.floats([1, 8, 96]), random.floats([2, 5, 3]), random.floats([1, 1, 257])]
}

/// Three steps on fresh gradients, which are returned too.
fn steps(format: MomentFormat, max_norm: f64) -> (Vec<Tensor<3>>, Vec<Tensor<3>>, Vec<Vec<Tensor<3>>>) {
    let mut random = Random(31);
    let start = tensors(&mut random);
    let gradients: Vec<_> = (0..3).map(|_| tensors(&mut random)).collect();
    let mut optimizer = AdamW::new(format, &start);
    let mut params = start.clone();
    for gradients in &gradients {
        let norm = grad_norm(gradients);
        let clip = Some(Clip { norm: &norm, max_norm });
        let update = optimizer.prepare(params, gradients, RATE, &SPEC, clip);
        params = optimizer.apply(update);
    }
    assert_eq!(optimizer.steps(), 3);
    (start, params, gradients)
}

#[test]
fn three_steps_equal_an_f64_formula() {
    for max_norm in [0.5, 1e9] {
        let (start, params, gradients) = steps(MomentFormat::Float, max_norm);
        let norm = |all: &[Tensor<3>]| -> f64 {
            all.iter().flat_map(values).map(|g| f64::from(g).powi(2)).sum::<f64>().sqrt()
        };
        for index in 0..start.len() {
            let mut expected: Vec<f64> = values(&start[index]).into_iter().map(f64::from).collect();
            let (mut first, mut second) = (vec![0.0; expected.len()], vec![0.0; expected.len()]);
            for (step, all) in gradients.iter().enumerate() {
                let factor = (max_norm / (norm(all) + 1e-6)).min(1.0);
                let t = step as i32 + 1;
                for (i, g) in values(&all[index]).into_iter().enumerate() {
                    let g = f64::from(g) * factor;
                    first[i] = 0.9 * first[i] + 0.1 * g;
                    second[i] = 0.999 * second[i] + 0.001 * g * g;
                    let (m, v) = (first[i] / (1.0 - 0.9f64.powi(t)), second[i] / (1.0 - 0.999f64.powi(t)));
                    expected[i] = expected[i] * (1.0 - RATE * 0.01) - RATE * m / (v.sqrt() + 1e-8);
                }
            }
            for (value, expected) in values(&params[index]).into_iter().zip(expected) {
                let off = (f64::from(value) - expected).abs();
                assert!(off < 2e-6 * expected.abs().max(1.0), "{value} is not {expected}");
            }
        }
    }
}

#[test]
fn moments_in_8_bit_move_the_parameters_nearly_alike() {
    let (start, exact, _) = steps(MomentFormat::Float, 1.0);
    let (_, coarse, _) = steps(MomentFormat::Blocks, 1.0);
    let moved = |to: &[Tensor<3>]| -> Vec<f32> {
        to.iter().zip(&start).flat_map(|(to, from)| values(&(to.clone() - from.clone()))).collect()
    };
    let (exact, coarse) = (moved(&exact), moved(&coarse));
    let norm = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
    let off: Vec<f32> = exact.iter().zip(&coarse).map(|(a, b)| a - b).collect();
    let ratio = norm(&off) / norm(&exact);
    assert!(ratio < 0.05, "the moves differ by {ratio}");
    assert!(ratio > 1e-6, "8 bits are not f32: the test compares a form with itself");
}

#[test]
fn a_norm_that_is_no_number_changes_nothing() {
    for format in [MomentFormat::Float, MomentFormat::Blocks] {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut random = Random(32);
            let (params, gradients) = (tensors(&mut random), tensors(&mut random));
            let mut optimizer = AdamW::new(format, &params);
            let norm = grad_norm(&gradients) * bad;
            let clip = Some(Clip { norm: &norm, max_norm: 1.0 });
            let update = optimizer.prepare(params.clone(), &gradients, RATE, &SPEC, clip);
            let after = optimizer.apply(update);
            for (a, b) in params.iter().zip(&after) {
                assert_eq!(values(a), values(b));
            }
            for moments in optimizer.moments() {
                match moments {
                    Moments::Float { first, .. } => assert!(values(first).iter().all(|m| *m == 0.0)),
                    Moments::Blocks { scales, .. } => assert!(values(&scales[0]).iter().all(|m| *m == 0.0)),
                }
            }
        }
    }
}

/// Two steps on a device, with updates before, between and behind them that are prepared and dropped: parameters and
/// moments, in f32.
fn two_steps(device: &Device, format: MomentFormat, dropped: bool) -> Vec<Vec<f32>> {
    let mut random = Random(34);
    let mut tensors = || -> Vec<Tensor<3>> {
        let all = tensors(&mut random).into_iter();
        all.map(|t| Tensor::from_data(t.into_data(), (device, DType::F32))).collect()
    };
    let (mut params, gradients, others) = (tensors(), [tensors(), tensors()], tensors());
    let mut optimizer = AdamW::new(format, &params);
    let in_vain = |optimizer: &mut AdamW, params: &[Tensor<3>]| {
        if dropped {
            let norm = grad_norm(&others);
            let clip = Some(Clip { norm: &norm, max_norm: 0.5 });
            drop(optimizer.prepare(params.to_vec(), &others, 7.0 * RATE, &SPEC, clip));
        }
    };
    for gradients in &gradients {
        in_vain(&mut optimizer, &params);
        let norm = grad_norm(gradients);
        let clip = Some(Clip { norm: &norm, max_norm: 1.0 });
        let update = optimizer.prepare(params.clone(), gradients, RATE, &SPEC, clip);
        let before: Vec<_> = params.iter().map(values).collect();
        params = optimizer.apply(update);
        assert!(params.iter().zip(before).all(|(after, before)| values(after) != before), "it has an effect");
    }
    in_vain(&mut optimizer, &params);
    assert_eq!(optimizer.steps(), 2);
    let moments = optimizer.moments().iter().flat_map(|moments| match moments {
        Moments::Float { first, second } => [values(first), values(second)],
        Moments::Blocks { scales: [first, second], .. } => [values(first), values(second)],
    });
    params.iter().map(values).chain(moments).collect()
}

fn a_dropped_update_has_no_effect(device: &Device) {
    for format in [MomentFormat::Float, MomentFormat::Blocks] {
        assert_eq!(two_steps(device, format, true), two_steps(device, format, false), "{format:?}");
    }
}

#[test]
fn an_update_that_is_prepared_and_dropped_has_no_effect() {
    a_dropped_update_has_no_effect(&Device::flex());
}

#[cfg(feature = "cuda")]
#[test]
#[ignore = "needs a card"]
fn on_a_card_neither() {
    a_dropped_update_has_no_effect(&crate::card::card());
}

/// What processes send each other: into one piece, apart again, and added in order, as tensors are added. So many tensors.
fn pieces_come_apart_and_are_summed_to_the_bit(device: &Device, count: usize) {
    let mut random = Random(40);
    // Places that are and are not multiples of 16 bytes.
    let shapes = [[2, 5, 3], [1, 8, 96], [3, 64, 1000], [1, 1, 257], [1, 1, 1]];
    let shapes: Vec<[usize; 3]> = shapes.iter().copied().cycle().take(count).collect();
    let mut piece = || -> Vec<Tensor<3>> {
        // Zeros of both signs among them.
        let mut some = |shape: &[usize; 3]| {
            let all = random.floats(*shape);
            all.clone() * all.abs().greater_elem(0.3).float()
        };
        shapes.iter().map(|s| Tensor::from_data(some(s).into_data(), (device, DType::F32))).collect()
    };
    let pieces = [piece(), piece(), piece()];
    let bits = |tensors: &[Tensor<3>]| -> Vec<Vec<u32>> {
        tensors.iter().map(|one| values(one).into_iter().map(f32::to_bits).collect()).collect()
    };
    let flat = flattened(pieces[0].clone());
    assert_eq!(bits(std::slice::from_ref(&flat))[0], bits(&pieces[0]).concat());
    let one = FlatSum::of(flat, &shapes).into_tensors();
    assert_eq!(one.iter().map(Tensor::dims).collect::<Vec<_>>(), shapes);
    assert_eq!(bits(&one), bits(&pieces[0]));
    let summed = |order: [usize; 3]| {
        let [first, second, third] = order.map(|at| flattened(pieces[at].clone()));
        bits(&FlatSum::of(first, &shapes).plus(second).plus(third).into_tensors())
    };
    let [first, second, third] = pieces.clone();
    let right = bits(&accumulate(accumulate(first, &second), &third));
    assert!(summed([0, 1, 2]) == right);
    assert!(summed([2, 1, 0]) != right, "the order of a sum is seen");
}

#[test]
fn gradients_in_one_piece_come_apart_and_are_summed_to_the_bit() {
    pieces_come_apart_and_are_summed_to_the_bit(&Device::flex(), 5);
}

/// More tensors than one launch takes.
#[cfg(feature = "cuda")]
#[test]
#[ignore = "needs a card"]
fn on_a_card_too() {
    pieces_come_apart_and_are_summed_to_the_bit(&crate::card::card(), 500);
}

#[test]
fn gradients_accumulate_tensor_by_tensor() {
    let mut random = Random(33);
    let (old, new) = (tensors(&mut random), tensors(&mut random));
    let sums = accumulate(old.clone(), &new);
    for ((old, new), sum) in old.iter().zip(&new).zip(&sums) {
        let expected: Vec<f32> = values(old).iter().zip(values(new)).map(|(a, b)| a + b).collect();
        assert_eq!(values(sum), expected);
    }
}

#[test]
fn matrices_with_an_element_other_than_zero_are_found() {
    let tensor = |values: &[f32], shape: [usize; 3]| {
        Tensor::<3>::from_data(TensorData::new(values.to_vec(), shape), (&Device::flex(), DType::F32))
    };
    // Too small for a square, of either sign, at either end; zeros of both signs.
    let grads = [
        tensor(&[0.0, 1e-30, 0.0, -0.0, -1e-30, 0.0], [3, 2, 1]),
        tensor(&[0.0, 0.0, 0.0, 2.0], [1, 2, 2]),
        tensor(&[-0.0, 0.0], [1, 1, 2]),
    ];
    assert_eq!(values(&reached(&grads)), [1.0, 0.0, 1.0, 1.0, 0.0]);
}
