//! Sampling: each filter drawn many times and compared with its definition, by Pearson's chi-square test.

use descant_model::Sampling;
use proptest::prelude::*;

const DRAWS: u64 = 8_000;
const VOCABULARY: usize = 40;

/// Logits with a long tail and some ties.
fn logits(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..n).map(|_| (next() * 24.0).round() / 4.0 - 3.0).collect()
}

/// The statistic of draws against probabilities, and its degrees of freedom; classes that expect fewer than five are
/// put together.
fn chi_square(counts: &[u64], probabilities: &[f64]) -> (f64, usize) {
    let (mut statistic, mut classes, mut rare) = (0.0, 0, (0.0, 0));
    let total = counts.iter().sum::<u64>() as f64;
    for (&count, p) in counts.iter().zip(probabilities) {
        let expected = p * total;
        assert!(expected > 0.0 || count == 0, "a token was drawn that the filters take out");
        if expected < 5.0 {
            rare = (rare.0 + expected, rare.1 + count);
            continue;
        }
        statistic += (count as f64 - expected).powi(2) / expected;
        classes += 1;
    }
    if rare.0 >= 5.0 {
        statistic += (rare.1 as f64 - rare.0).powi(2) / rare.0;
        classes += 1;
    }
    (statistic, classes.max(1) - 1)
}

/// A bound that a sound sampler passes with probability 1e-6: Wilson and Hilferty's approximation.
fn bound(freedom: usize) -> f64 {
    const Z: f64 = 4.753;
    let k = freedom.max(1) as f64;
    k * (1.0 - 2.0 / (9.0 * k) + Z * (2.0 / (9.0 * k)).sqrt()).powi(3)
}

fn draw(sampling: &Sampling, logits: &[f32], seen: &[u32]) -> Vec<u64> {
    let mut counts = vec![0; logits.len()];
    for step in 0..DRAWS as u32 {
        counts[sampling.choose(logits, seen, 7, step) as usize] += 1;
    }
    counts
}

fn cases() -> Vec<(&'static str, Sampling)> {
    let plain = Sampling { seed: 3, ..Sampling::default() };
    vec![
        ("plain", plain),
        ("hot", Sampling { temperature: 1.7, ..plain }),
        ("cold", Sampling { temperature: 0.4, ..plain }),
        ("top-k", Sampling { top_k: 9, ..plain }),
        ("top-p", Sampling { top_p: 0.8, ..plain }),
        ("min-p", Sampling { min_p: 0.15, ..plain }),
        ("penalty", Sampling { repetition_penalty: 1.6, ..plain }),
        ("reward", Sampling { repetition_penalty: 0.7, ..plain }),
        ("top-k and top-p", Sampling { top_k: 12, top_p: 0.7, ..plain }),
        (
            "all",
            Sampling {
                temperature: 1.4,
                top_k: 30,
                top_p: 0.9,
                min_p: 0.05,
                repetition_penalty: 1.2,
                ..plain
            },
        ),
    ]
}

#[test]
fn draws_follow_the_definition_of_every_filter() {
    for (name, sampling) in cases() {
        let logits = logits(VOCABULARY, 1);
        let seen = [3, 3, 17, 29, 39, 17];
        let expected = sampling.probabilities(&logits, &seen);
        assert!((expected.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let (statistic, freedom) = chi_square(&draw(&sampling, &logits, &seen), &expected);
        assert!(statistic < bound(freedom), "{name}: {statistic} of {freedom}");
    }
}

#[test]
fn the_test_finds_a_filter_that_is_off_by_little() {
    let logits = logits(VOCABULARY, 1);
    let plain = Sampling { seed: 3, ..Sampling::default() };
    for (right, wrong) in [
        (Sampling { temperature: 1.0, ..plain }, Sampling { temperature: 1.15, ..plain }),
        (Sampling { min_p: 0.15, ..plain }, Sampling { min_p: 0.35, ..plain }),
        (Sampling { repetition_penalty: 1.6, ..plain }, Sampling { repetition_penalty: 1.2, ..plain }),
    ] {
        let expected = right.probabilities(&logits, &[3, 17, 29, 39]);
        let counts = draw(&wrong, &logits, &[3, 17, 29, 39]);
        let (statistic, freedom) = chi_square(&counts, &expected);
        assert!(statistic > bound(freedom), "{wrong:?}: {statistic} of {freedom}");
    }
}

#[test]
fn filters_keep_what_transformers_keeps() {
    // Probabilities 0.1, 0.4, 0.2, 0.2, 0.1.
    let logits: Vec<f32> = [0.1f32, 0.4, 0.2, 0.2, 0.1].iter().map(|p| p.ln()).collect();
    let kept = |sampling: Sampling| -> Vec<usize> {
        let all = sampling.probabilities(&logits, &[]);
        all.iter().enumerate().filter(|(_, p)| **p > 0.0).map(|(id, _)| id).collect()
    };
    let plain = Sampling::default();
    assert_eq!(kept(Sampling { top_k: 1, ..plain }), [1]);
    assert_eq!(kept(Sampling { top_k: 2, ..plain }), [1, 2, 3], "a tie with the last stays");
    assert_eq!(kept(Sampling { top_k: 9, ..plain }), [0, 1, 2, 3, 4]);
    assert_eq!(kept(Sampling { top_p: 0.39, ..plain }), [1]);
    assert_eq!(kept(Sampling { top_p: 0.41, ..plain }), [1, 2], "the lower id of a tie comes first");
    assert_eq!(kept(Sampling { top_p: 0.61, ..plain }), [1, 2, 3]);
    assert_eq!(kept(Sampling { min_p: 0.3, ..plain }), [1, 2, 3]);
    // top-p sees what top-k left: 0.4 of 0.8 is one half.
    assert_eq!(kept(Sampling { top_k: 2, top_p: 0.49, ..plain }), [1]);
    assert_eq!(kept(Sampling { top_k: 2, top_p: 0.51, ..plain }), [1, 2]);
    // min-p after temperature: 0.4 and 0.2 are four to one at a temperature of one half.
    assert_eq!(kept(Sampling { temperature: 0.5, min_p: 0.3, ..plain }), [1]);
    // The penalty comes before everything, a greedy choice too, and once a token.
    let penalty = Sampling { repetition_penalty: 5.0, ..Sampling::GREEDY };
    assert_eq!(penalty.choose(&[2.0, 1.0, -1.0], &[0, 0], 0, 0), 1);
    assert_eq!(penalty.choose(&[-1.0, -2.0, -3.0], &[0, 0], 0, 0), 1);
    assert_eq!(Sampling::GREEDY.choose(&[1.0, 5.0, 5.0], &[], 0, 0), 1, "ties to the lower id");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_draw_is_the_one_that_the_definition_gives(
        size in 1usize..300,
        seed in any::<u64>(),
        temperature in 0.0f32..3.0,
        top_k in 0u32..50,
        top_p in 0.05f32..=1.0,
        min_p in 0.0f32..0.5,
        repetition_penalty in 0.5f32..2.0,
        seen in proptest::collection::vec(0u32..400, 0..30),
    ) {
        let logits = logits(size, seed);
        let seen: Vec<u32> = seen.into_iter().filter(|id| (*id as usize) < size).collect();
        let sampling = Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed };
        let expected = sampling.probabilities(&logits, &seen);
        for step in 0..20 {
            let id = sampling.choose(&logits, &seen, 0, step);
            prop_assert!(expected[id as usize] > 0.0, "{sampling:?} chose {id}");
        }
    }
}
