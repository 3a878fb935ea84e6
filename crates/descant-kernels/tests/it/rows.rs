//! Operators that work row by row: RMSNorm, rotary, SwiGLU, loss, cache.

use burn::tensor::{Device, Tensor};
use descant_kernels as k;

use crate::support::{Random, assert_same, difference, ints, run, values};

#[test]
fn rms_norm_equals_its_definition() {
    let mut random = Random(1);
    for (rows, width) in [(1, 7), (65, 130), (3, 2880)] {
        let (x, weight) = (random.floats([rows, width]), random.floats([width]));
        let seed = random.floats([rows, width]);
        let fast = run([&x], &seed, |[x]| k::rms_norm(x, &weight, 1e-5));
        let slow = run([&x], &seed, |[x]| k::reference::rms_norm(x, &weight, 1e-5));
        assert_same(&fast, &slow, "rms_norm");
    }
}

#[test]
fn rotary_equals_its_definition_and_keeps_lengths() {
    let mut random = Random(2);
    let (x, angles) = (random.floats([67, 3, 10]), random.floats([67, 5]));
    let (cos, sin) = (angles.clone().cos(), angles.sin());
    let seed = random.floats([67, 3, 10]);
    let fast = run([&x], &seed, |[x]| k::rotary(x, &cos, &sin));
    let slow = run([&x], &seed, |[x]| k::reference::rotary(x, &cos, &sin));
    assert_same(&fast, &slow, "rotary");
    let lengths = |x: Tensor<3>| x.powi_scalar(2).sum_dim(2);
    assert!(difference(&lengths(k::rotary(x.clone(), &cos, &sin)), &lengths(x)) < 1e-5);
}

#[test]
fn swiglu_equals_its_definition_where_clamps_bite_and_where_not() {
    let mut random = Random(3);
    let x = random.floats([131, 46]) * 6.0;
    let seed = random.floats([131, 23]);
    let bitten = values(&x).iter().filter(|x| x.abs() > 7.0).count();
    assert!(bitten > 500, "the test must reach the clamps, reached {bitten} times");
    let fast = run([&x], &seed, |[x]| k::swiglu(x, 7.0));
    let slow = run([&x], &seed, |[x]| k::reference::swiglu(x, 7.0));
    assert_same(&fast, &slow, "swiglu");
}

#[test]
fn swapping_gate_and_up_changes_the_result() {
    let mut random = Random(4);
    let x = random.floats([5, 12]);
    let swapped = x.clone().reshape([5, 6, 2]).flip([2]).reshape([5, 12]);
    assert!(difference(&k::swiglu(swapped, 7.0), &k::swiglu(x, 7.0)) > 0.01);
}

#[test]
fn token_losses_equal_their_definition() {
    let mut random = Random(5);
    for rows in [1, 63, 130] {
        let (hidden, head) = (random.floats([rows, 24]), random.floats([301, 24]));
        let targets: Vec<i32> = (0..rows).map(|_| (random.bits() % 301) as i32).collect();
        let targets = ints(&targets, [rows]);
        let seed = random.floats([rows]);
        let fast =
            run([&hidden], &seed, |[h]| k::token_losses(h, &head, &targets, &k::LogitsRoom::default()));
        let slow = run([&hidden], &seed, |[h]| k::reference::token_losses(h, &head, &targets));
        assert_same(&fast, &slow, "token_losses");
    }
}

#[test]
fn a_weighted_sum_of_losses_equals_its_definition_and_has_the_weights_as_its_gradient() {
    let mut random = Random(8);
    for rows in [1, 63, 130] {
        let (losses, weights, seed) = (random.floats([rows]), random.floats([rows]), random.floats([1]));
        let fast = run([&losses], &seed, |[x]| k::weighted_sum(x, weights.clone()));
        let slow = run([&losses], &seed, |[x]| k::reference::weighted_sum(x, weights.clone()));
        assert_same(&fast, &slow, "weighted_sum");
        let ones = Tensor::ones([1], &losses.device());
        let begun = run([&losses], &ones, |[x]| k::weighted_sum(x, weights.clone()));
        assert_eq!(values(&begun[1]), values(&weights), "to the bit");
    }
}

#[test]
fn token_losses_equal_an_f64_formula() {
    let mut random = Random(6);
    let (hidden, head) = (random.floats([4, 8]), random.floats([11, 8]) * 4.0);
    let targets = [0i32, 10, 3, 3];
    let losses =
        values(&k::token_losses(hidden.clone(), &head, &ints(&targets, [4]), &k::LogitsRoom::default()));
    let (hidden, head) = (values(&hidden), values(&head));
    for (row, &target) in targets.iter().enumerate() {
        let logit = |word: usize| -> f64 {
            (0..8).map(|i| f64::from(hidden[row * 8 + i]) * f64::from(head[word * 8 + i])).sum()
        };
        let sum: f64 = (0..11).map(|w| logit(w).exp()).sum();
        let expected = sum.ln() - logit(target as usize);
        assert!((f64::from(losses[row]) - expected).abs() < 1e-4 * expected.abs().max(1.0));
    }
}

#[test]
fn divergences_equal_their_formula_and_are_nothing_between_equal_rows() {
    let mut random = Random(9);
    for rows in [1, 63, 130] {
        let (one, head) = (random.floats([rows, 8]), random.floats([11, 8]) * 4.0);
        let other = one.clone() + random.floats([rows, 8]) * 0.1;
        let found = k::divergences(&one, &other, &head, &k::LogitsRoom::default()).unwrap();
        let logits = |hidden: &Tensor<2>| values(&hidden.clone().matmul(head.clone().transpose()));
        let (p, q) = (logits(&one), logits(&other));
        for (row, found) in found.iter().enumerate() {
            let [p, q] = [&p, &q].map(|of| &of[11 * row..11 * (row + 1)]);
            let [of_p, of_q] = [p, q].map(|of| of.iter().map(|x| f64::from(*x).exp()).sum::<f64>());
            let each = p.iter().zip(q).map(|(p, q)| {
                let [p, q] = [f64::from(*p).exp() / of_p, f64::from(*q).exp() / of_q];
                p * (p / q).ln()
            });
            let expected: f64 = each.sum();
            assert!((f64::from(*found) - expected).abs() < 1e-3 * expected + 1e-9, "{found} {expected}");
        }
        let same = k::divergences(&one, &one, &head, &k::LogitsRoom::default()).unwrap();
        assert!(same.iter().all(|found| found.abs() < 1e-12));
    }
}

#[test]
fn cache_rows_are_written_and_the_rest_stays() {
    let mut random = Random(7);
    let (cache, new) = (random.floats([9, 4]), random.floats([3, 4]));
    let rows = ints(&[8, 0, 5], [3]);
    let fast = k::write_rows(cache.clone(), &rows, new.clone());
    assert!(difference(&fast, &k::reference::write_rows(cache.clone(), &rows, new.clone())) < 1e-6);
    assert!(difference(&fast.clone().narrow(0, 1, 4), &cache.narrow(0, 1, 4)) == 0.0);
    assert!(difference(&fast.narrow(0, 8, 1), &new.narrow(0, 0, 1)) == 0.0);
}

#[test]
fn rows_by_index_are_those_rows_and_their_gradient_is_elsewhere_zero() {
    let mut random = Random(9);
    let (x, rows) = (random.floats([7, 4]), [1, 2, 6]);
    let seed = random.floats([3, 4]);
    let all = run([&x], &seed, |[x]| k::select_rows(x, &rows));
    let (x, seed) = (values(&x), values(&seed));
    let (taken, gradient) = (values(&all[0]), values(&all[1]));
    for row in 0..7 {
        let place = rows.iter().position(|&taken| taken == row);
        let expected = place.map_or(&[0.0; 4][..], |place| &seed[4 * place..][..4]);
        assert_eq!(&gradient[4 * row..][..4], expected);
        if let Some(place) = place {
            assert_eq!(&taken[4 * place..][..4], &x[4 * row..][..4]);
        }
    }
    let table = random.floats([5, 3]);
    assert_eq!(values(&k::gather_rows(&table, &[4, 0, 4]))[6..], values(&table)[12..]);
}

#[test]
#[should_panic(expected = "a row beyond the last")]
fn a_row_by_index_must_be_there() {
    drop(k::select_rows(Random(9).floats([7, 4]), &[1, 7]));
}

#[test]
fn results_do_not_depend_on_threads() {
    let mut random = Random(8);
    let (x, weight) = (random.floats([1500, 96]), random.floats([1, 200, 96]));
    let (a, b) = (random.floats([1, 8, 96]), random.floats([1, 200, 8]));
    let seed = random.floats([1500, 200]);
    let weight = k::FrozenWeight::Dense(weight);
    let step = || {
        let y = run([&x], &seed, |[x]| k::linear(x, &weight, None, &k::Groups::One));
        let z = run([&a, &b], &seed, |[a, b]| {
            let x = Tensor::from_data(x.clone().into_data(), &Device::flex().autodiff());
            k::low_rank(x, a, b, 2.0, &k::Groups::One)
        });
        y.iter().chain(&z).flat_map(values).map(f32::to_bits).collect::<Vec<_>>()
    };
    let with =
        |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool").install(step);
    assert_eq!(with(1), with(2));
    assert_eq!(with(1), with(5));
}
