//! Attention against its definition and against f64 formulas for sink and window.

use burn::tensor::Tensor;
use descant_kernels as k;
use descant_kernels::{AttentionSpec, Segment, Segments};

use crate::support::{Random, assert_same, difference, run, values};

/// Lengths of the sequences, query heads, key heads, width of a head, window.
type Case = (&'static [usize], usize, usize, usize, Option<usize>);

/// Sizes that are not multiples of a block, one-token sequences, a window longer than a sequence.
const CASES: [Case; 6] = [
    (&[1], 1, 1, 2, None),
    (&[5, 1, 70], 4, 2, 6, Some(3)),
    (&[33, 129], 8, 2, 32, Some(64)),
    (&[33, 129], 8, 2, 32, None),
    (&[17], 16, 2, 64, Some(1)),
    (&[40, 3], 6, 6, 16, Some(1000)),
];

#[test]
fn attention_equals_its_definition() {
    let mut random = Random(11);
    for (lengths, heads, kv, dim, window) in CASES {
        let n: usize = lengths.iter().sum();
        let (q, k, v) =
            (random.floats([n, heads, dim]), random.floats([n, kv, dim]), random.floats([n, kv, dim]));
        let (sinks, seed) = (random.floats([heads]), random.floats([n, heads, dim]));
        let spec = AttentionSpec { window, scale: (dim as f32).powf(-0.5) };
        let segments = Segments::from_lengths(lengths);
        let fast = run([&q, &k, &v], &seed, |[q, k, v]| k::attention(q, k, v, &sinks, spec, &segments));
        let slow =
            run([&q, &k, &v], &seed, |[q, k, v]| k::reference::attention(q, k, v, &sinks, spec, &segments));
        assert_same(&fast, &slow, &format!("attention {lengths:?} heads {heads}/{kv} window {window:?}"));
    }
}

/// The last query's output by the formula, in f64.
fn last_row(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dim: usize,
    scale: f64,
    sink: f64,
    first_key: usize,
) -> Vec<f64> {
    let n = k.len() / dim;
    let query = &q[(n - 1) * dim..];
    let score = |key: usize| -> f64 {
        scale * (0..dim).map(|i| f64::from(query[i]) * f64::from(k[key * dim + i])).sum::<f64>()
    };
    let denominator = sink.exp() + (first_key..n).map(|key| score(key).exp()).sum::<f64>();
    (0..dim)
        .map(|i| (first_key..n).map(|key| score(key).exp() / denominator * f64::from(v[key * dim + i])).sum())
        .collect()
}

#[test]
fn sink_and_window_equal_an_f64_formula() {
    let mut random = Random(12);
    let (n, dim) = (21, 8);
    let (q, k, v) = (random.floats([n, 1, dim]), random.floats([n, 1, dim]), random.floats([n, 1, dim]));
    for (window, first_key) in [(None, 0), (Some(1), 20), (Some(4), 17), (Some(21), 0), (Some(100), 0)] {
        for sink in [-30.0f32, 0.0, 2.5] {
            let sinks = Tensor::<1>::from_floats([sink], &q.device());
            let spec = AttentionSpec { window, scale: 0.3 };
            let segments = Segments::from_lengths(&[n]);
            let out = values(&k::attention(q.clone(), k.clone(), v.clone(), &sinks, spec, &segments));
            let expected =
                last_row(&values(&q), &values(&k), &values(&v), dim, 0.3f32.into(), sink.into(), first_key);
            for (i, expected) in expected.iter().enumerate() {
                let got = f64::from(out[(n - 1) * dim + i]);
                assert!((got - expected).abs() < 1e-5, "window {window:?} sink {sink}: {got} != {expected}");
            }
        }
    }
}

#[test]
fn dropping_the_sink_or_shifting_the_window_changes_the_result() {
    let mut random = Random(13);
    let (q, k, v) = (random.floats([30, 2, 8]), random.floats([30, 1, 8]), random.floats([30, 1, 8]));
    let sinks = random.floats([2]);
    let segments = Segments::from_lengths(&[30]);
    let run = |sinks: &Tensor<1>, window| {
        let spec = AttentionSpec { window: Some(window), scale: 0.35 };
        k::attention(q.clone(), k.clone(), v.clone(), sinks, spec, &segments)
    };
    let right = run(&sinks, 6);
    assert!(difference(&run(&(sinks.clone() - 1e4), 6), &right) > 1e-2, "no sink");
    assert!(difference(&run(&sinks, 5), &right) > 1e-2, "window one shorter");
    assert!(difference(&run(&sinks, 7), &right) > 1e-2, "window one longer");
}

#[test]
fn decoding_from_a_cache_equals_the_whole_sequence() {
    let mut random = Random(14);
    let lengths = [9usize, 40];
    let n: usize = lengths.iter().sum();
    let (q, k, v) = (random.floats([n, 4, 8]), random.floats([n, 2, 8]), random.floats([n, 2, 8]));
    let sinks = random.floats([4]);
    for window in [None, Some(7)] {
        let spec = AttentionSpec { window, scale: 0.35 };
        let whole =
            k::attention(q.clone(), k.clone(), v.clone(), &sinks, spec, &Segments::from_lengths(&lengths));
        // The last query of each sequence, against keys that lie in the other order.
        let last = Tensor::cat(vec![q.clone().narrow(0, 8, 1), q.clone().narrow(0, 48, 1)], 0);
        let cache =
            |x: &Tensor<3>| Tensor::cat(vec![x.clone().narrow(0, 9, 40), x.clone().narrow(0, 0, 9)], 0);
        let segments = Segments::new([
            Segment { query_start: 0, query_len: 1, key_start: 40, key_len: 9 },
            Segment { query_start: 1, query_len: 1, key_start: 0, key_len: 40 },
        ]);
        let step = k::attention(last, cache(&k), cache(&v), &sinks, spec, &segments);
        let expected = Tensor::cat(vec![whole.clone().narrow(0, 8, 1), whole.narrow(0, 48, 1)], 0);
        assert!(difference(&step, &expected) < 1e-5);
    }
}

#[test]
fn sequences_do_not_see_each_other() {
    let mut random = Random(15);
    let (q, k, v) = (random.floats([20, 2, 8]), random.floats([20, 2, 8]), random.floats([20, 2, 8]));
    let sinks = random.floats([2]);
    let spec = AttentionSpec { window: None, scale: 0.35 };
    let segments = Segments::from_lengths(&[12, 8]);
    let out = |k: Tensor<3>| k::attention(q.clone(), k, v.clone(), &sinks, spec, &segments).narrow(0, 12, 8);
    let changed = Tensor::cat(vec![random.floats([12, 2, 8]), k.clone().narrow(0, 12, 8)], 0);
    assert!(difference(&out(changed), &out(k)) == 0.0);
}

#[test]
#[should_panic(expected = "cover all query rows")]
fn rows_without_a_sequence_are_refused() {
    let mut random = Random(16);
    let x = random.floats([5, 1, 2]);
    let spec = AttentionSpec { window: None, scale: 1.0 };
    let sinks = random.floats([1]);
    let _ = k::attention(x.clone(), x.clone(), x, &sinks, spec, &Segments::from_lengths(&[4]));
}
