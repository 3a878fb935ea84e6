//! YaRN's angles against the formula, written out once more in the paper's terms.

use descant_model::{Rope, Yarn};

fn yarn(truncate: bool) -> Rope {
    Rope {
        theta: 150_000.0,
        yarn: Some(Yarn {
            factor: 32.0,
            original_max_position_embeddings: 4096.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate,
            attention_factor: 0.1 * 32f64.ln() + 1.0,
        }),
    }
}

/// Frequency of pair `i`: interpolated by how often it turns in 4096 positions.
fn expected(i: usize, dim: usize, truncate: bool) -> f64 {
    let frequency = 150_000f64.powf(-(2.0 * i as f64) / dim as f64);
    let border =
        |turns: f64| dim as f64 * (4096.0 / (turns * std::f64::consts::TAU)).ln() / (2.0 * 150_000f64.ln());
    let (mut low, mut high) = (border(32.0), border(1.0));
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    let share = ((i as f64 - low.max(0.0)) / (high.min(dim as f64 - 1.0) - low.max(0.0))).clamp(0.0, 1.0);
    (1.0 - share) * frequency + share * frequency / 32.0
}

#[test]
fn yarn_frequencies_equal_the_formula() {
    for (dim, truncate) in [(16, false), (64, false), (64, true)] {
        let got = yarn(truncate).inverse_frequencies(dim);
        assert_eq!(got.len(), dim / 2);
        for (i, got) in got.iter().enumerate() {
            let expected = expected(i, dim, truncate);
            assert!((got / expected - 1.0).abs() < 1e-12, "pair {i} of {dim}: {got} != {expected}");
        }
    }
    assert_ne!(yarn(false).inverse_frequencies(64), yarn(true).inverse_frequencies(64));
}

#[test]
fn the_table_is_the_angle_times_the_attention_factor() {
    let (dim, positions) = (64, 300);
    let (cos, sin) = yarn(false).table(dim, positions);
    let magnitude = 0.1 * 32f64.ln() + 1.0;
    for p in [0, 1, 17, 299] {
        for i in [0, 5, 31] {
            let angle = p as f64 * expected(i, dim, false);
            assert!((f64::from(cos[p * 32 + i]) - angle.cos() * magnitude).abs() < 1e-6);
            assert!((f64::from(sin[p * 32 + i]) - angle.sin() * magnitude).abs() < 1e-6);
        }
    }
}
