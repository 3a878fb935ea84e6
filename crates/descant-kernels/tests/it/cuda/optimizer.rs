//! The optimizer, against the CPU's own, which is compared with the definition; and sums of gradients.

use burn::tensor::{DType, Device, Tensor};
use descant_kernels as k;
use descant_kernels::cuda::Gpu;

use crate::card::{card, error, floats, on};
use crate::support::Random;

#[test]
#[ignore = "needs a card"]
fn the_optimizer_on_a_card_equals_that_of_the_cpu() {
    let card = card();
    let spec = k::AdamWSpec { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };
    // 8-bit moments may round to another code where a value is between two.
    for (format, tolerance) in [(k::MomentFormat::Float, 1e-6), (k::MomentFormat::Blocks, 2e-4)] {
        let train = |device: &Device| {
            let mut random = Random(38);
            let mut tensors = || -> Vec<Tensor<3>> {
                let shapes = [[1, 8, 96], [2, 5, 3], [1, 1, 257], [3, 64, 1000]];
                shapes.map(|shape| on(&random.floats(shape), device, DType::F32)).to_vec()
            };
            let mut params = tensors();
            let mut optimizer = k::AdamW::new(format, &params);
            let mut norms = Vec::new();
            for _ in 0..4 {
                let gradients = k::accumulate(tensors(), &tensors());
                let norm = k::grad_norm(&gradients);
                norms.extend(floats(norm.clone()));
                let clip = Some(k::Clip { norm: &norm, max_norm: 1.0 });
                let update = optimizer.prepare(params, &gradients, 2e-3, &spec, clip);
                params = optimizer.apply(update);
            }
            params.into_iter().map(floats).chain([norms]).collect::<Vec<_>>()
        };
        let (fast, again, slow) = (train(&card), train(&card), train(&Device::flex()));
        assert_eq!(Gpu::of(0).expect("the card").take_error(), None);
        for (i, ((fast, again), slow)) in fast.iter().zip(&again).zip(&slow).enumerate() {
            let other = fast.iter().zip(again).position(|(a, b)| a.to_bits() != b.to_bits());
            let which = other.map(|at| (at, fast[at], again[at]));
            assert_eq!(which, None, "{format:?}, tensor {i}: other bits");
            let e = error(fast, slow);
            println!("optimizer {format:?}: {e:.2e}");
            assert!(e <= tolerance, "{format:?}: {e:e}");
        }
    }
}

/// What several cards send each other: into one piece, apart again, and added in order, as tensors are added.
#[test]
#[ignore = "needs a card"]
fn gradients_in_one_piece_come_apart_and_are_summed_to_the_bit() {
    let card = card();
    let mut random = Random(40);
    // Places that are and are not multiples of 16 bytes, and more tensors than one launch takes.
    let shapes = [[2, 5, 3], [1, 8, 96], [3, 64, 1000], [1, 1, 257], [1, 1, 1]];
    let shapes: Vec<[usize; 3]> = shapes.iter().copied().cycle().take(500).collect();
    let mut piece = || -> Vec<Tensor<3>> {
        shapes.iter().map(|shape| on(&random.floats(*shape), &card, DType::F32)).collect()
    };
    let pieces = [piece(), piece(), piece()];
    let bits = |tensors: &[Tensor<3>]| -> Vec<Vec<u32>> {
        tensors.iter().map(|one| floats(one.clone()).into_iter().map(f32::to_bits).collect()).collect()
    };
    let flat = k::flattened(pieces[0].clone());
    assert_eq!(bits(std::slice::from_ref(&flat))[0], bits(&pieces[0]).concat());
    assert_eq!(bits(&k::FlatSum::of(flat, &shapes).into_tensors()), bits(&pieces[0]));
    let summed = |order: [usize; 3]| {
        let [first, second, third] = order.map(|at| k::flattened(pieces[at].clone()));
        bits(&k::FlatSum::of(first, &shapes).plus(second).plus(third).into_tensors())
    };
    let [first, second, third] = pieces.clone();
    let right = bits(&k::accumulate(k::accumulate(first, &second), &third));
    assert!(summed([0, 1, 2]) == right);
    assert!(summed([2, 1, 0]) != right, "the order of a sum is seen");
    assert_eq!(Gpu::of(0).expect("the card").take_error(), None);
}
