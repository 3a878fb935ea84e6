//! The optimizer, against the CPU's own, which is compared with the definition.

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
