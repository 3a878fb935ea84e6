//! Grouped products, low-rank pairs and routing.

use burn::tensor::{DType, Tensor};
use descant_kernels as k;
use descant_kernels::{FrozenWeight, Groups};

use crate::support::{
    Random, TOLERANCE, assert_same, difference, flat, int_values, leaf, mxfp4, nf4, run, sorted, values,
};

/// Rows a matrix: none, one, many, none at the end.
const SPREAD: [usize; 5] = [0, 1, 77, 600, 0];

fn groups(spread: &[usize]) -> (Groups, usize) {
    let (offsets, rows) = sorted(spread);
    (Groups::Sorted { offsets }, rows)
}

fn weights(random: &mut Random, n: usize, d_in: usize, d_out: usize) -> Vec<FrozenWeight> {
    vec![
        FrozenWeight::Dense(random.floats([n, d_out, d_in])),
        FrozenWeight::Transposed(random.floats([n, d_in, d_out])),
        mxfp4(random, [n, d_out, d_in], 120, 126),
    ]
    .into_iter()
    .chain(d_in.is_multiple_of(64).then(|| nf4(random, n, d_in, d_out)))
    .collect()
}

#[test]
fn grouped_products_equal_their_definition_in_every_storage() {
    let mut random = Random(21);
    for (spread, d_in, d_out) in [(&SPREAD[..], 64, 150), (&[3, 0, 2], 32, 7), (&[0, 0, 9], 96, 128)] {
        let (groups, rows) = groups(spread);
        let weights = weights(&mut random, spread.len(), d_in, d_out);
        assert_eq!(weights.len(), if d_in == 64 { 4 } else { 3 });
        for weight in weights {
            let (x, bias) = (random.floats([rows, d_in]), random.floats([spread.len(), d_out]));
            let seed = random.floats([rows, d_out]);
            let fast = run([&x], &seed, |[x]| k::linear(x, &weight, Some(&bias), &groups));
            let slow = run([&x], &seed, |[x]| k::reference::linear(x, &weight, Some(&bias), &groups));
            assert_same(&fast, &slow, "linear");
        }
    }
}

#[test]
fn transposed_storage_means_the_transposed_matrix() {
    let mut random = Random(22);
    let (x, w) = (random.floats([9, 5]), random.floats([1, 7, 5]));
    let dense = k::linear(x.clone(), &FrozenWeight::Dense(w.clone()), None, &Groups::One);
    let transposed = k::linear(x, &FrozenWeight::Transposed(w.swap_dims(1, 2)), None, &Groups::One);
    assert!(difference(&transposed, &dense) < 1e-6);
}

#[test]
fn low_rank_equals_its_definition_with_rank_unlike_the_number_of_experts() {
    let mut random = Random(23);
    for (spread, rank) in [(&SPREAD[..], 3), (&[4, 1], 8)] {
        let (groups, rows) = groups(spread);
        let (n, d_in, d_out) = (spread.len(), 40, 22);
        let x = random.floats([rows, d_in]);
        let (a, b) = (random.floats([n, rank, d_in]), random.floats([n, d_out, rank]));
        let seed = random.floats([rows, d_out]);
        let go = |f: fn(Tensor<2>, Tensor<3>, Tensor<3>, f32, &Groups) -> Tensor<2>| {
            let (x, a, b) = (leaf(&x), leaf(&a), leaf(&b));
            let y = f(x.clone(), a.clone(), b.clone(), 1.7, &groups);
            let seed = Tensor::from_data(seed.clone().into_data(), &y.device());
            let grads = (y.clone() * seed).sum().backward();
            let gradient = |g: Option<Tensor<3>>| flat(g.expect("a gradient"));
            [
                flat(y.inner()),
                flat(x.grad(&grads).expect("a gradient")),
                gradient(a.grad(&grads)),
                gradient(b.grad(&grads)),
            ]
        };
        assert_same(&go(k::low_rank), &go(k::reference::low_rank), "low_rank");
    }
}

#[test]
fn a_transposed_b_changes_the_result() {
    let mut random = Random(24);
    let (x, a, b) = (random.floats([6, 5]), random.floats([1, 4, 5]), random.floats([1, 4, 4]));
    let right = k::low_rank(x.clone(), a.clone(), b.clone(), 1.0, &Groups::One);
    assert!(difference(&k::low_rank(x, a, b.swap_dims(1, 2), 1.0, &Groups::One), &right) > 1e-2);
}

#[test]
fn routing_equals_its_definition_and_inverts() {
    let mut random = Random(25);
    for (tokens, experts, top) in [(1, 4, 4), (300, 8, 2), (77, 32, 4)] {
        let logits = random.floats([tokens, experts]);
        let (fast, slow) = (k::route(&logits, top), k::reference::route(&logits, top));
        assert_eq!(int_values(&fast.experts), int_values(&slow.experts));
        assert_eq!(int_values(&fast.pairs), int_values(&slow.pairs));
        assert_eq!(int_values(&fast.places), int_values(&slow.places));
        assert_eq!(int_values(&fast.offsets), int_values(&slow.offsets));
        let (pairs, places) = (int_values(&fast.pairs), int_values(&fast.places));
        assert!(pairs.iter().enumerate().all(|(place, &pair)| places[pair as usize] == place as i64));
    }
}

#[test]
fn equal_logits_go_to_the_lower_expert() {
    let logits =
        Tensor::<2>::from_floats([[1.0, 3.0, 3.0, 1.0], [2.0, 2.0, 2.0, 2.0]], &burn::tensor::Device::flex());
    assert_eq!(int_values(&k::route(&logits, 3).experts), [1, 2, 0, 0, 1, 2]);
    assert_eq!(int_values(&k::reference::route(&logits, 3).experts), [1, 2, 0, 0, 1, 2]);
}

#[test]
fn routed_operators_equal_their_definitions() {
    let mut random = Random(26);
    let (tokens, experts, top, width) = (131, 8, 3, 18);
    let logits = random.floats([tokens, experts]);
    let routing = k::route(&logits, top);
    assert_eq!(routing.experts.dtype(), DType::I32);
    let seed = random.floats([tokens, top]);
    let fast = run([&logits], &seed, |[l]| k::expert_weights(l, &routing));
    let slow = run([&logits], &seed, |[l]| k::reference::expert_weights(l, &routing));
    assert_same(&fast, &slow, "expert_weights");
    assert!(
        values(&k::expert_weights(logits, &routing).sum_dim(1)).iter().all(|s| (s - 1.0).abs() < TOLERANCE)
    );

    let (x, seed) = (random.floats([tokens, width]), random.floats([tokens * top, width]));
    let fast = run([&x], &seed, |[x]| k::take_tokens(x, &routing));
    let slow = run([&x], &seed, |[x]| k::reference::take_tokens(x, &routing));
    assert_same(&fast, &slow, "take_tokens");

    let (y, weights) = (random.floats([tokens * top, width]), random.floats([tokens, top]));
    let seed = random.floats([tokens, width]);
    let fast = run([&y, &weights], &seed, |[y, w]| k::combine_experts(y, w, &routing));
    let slow = run([&y, &weights], &seed, |[y, w]| k::reference::combine_experts(y, w, &routing));
    assert_same(&fast, &slow, "combine_experts");
}
