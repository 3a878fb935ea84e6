//! Intervals and tests: Wilson's for a share, Newcombe's and McNemar's for paired shares, a bootstrap for means.
//!
//! The random numbers are SplitMix64's from a fixed seed, so that equal data give equal intervals everywhere.

use serde::Serialize;

/// Two-sided 95 % of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;
/// Confidence of every interval.
pub const CONFIDENCE: f64 = 0.95;
const ROUNDS: usize = 10_000;

/// An interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Its low end.
    pub low: f64,
    /// Its high end.
    pub high: f64,
}

/// Wilson's interval of `k` of `n`; of 0 of 0, everything.
pub fn wilson(k: u64, n: u64) -> Interval {
    wilson_of(k as f64 / n.max(1) as f64, n)
}

/// Wilson's interval of a share, where `n` counts what is independent: questions, when each has several replies.
pub fn wilson_of(p: f64, n: u64) -> Interval {
    if n == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let (n_, z2) = (n as f64, Z * Z);
    let middle = (p + z2 / (2.0 * n_)) / (1.0 + z2 / n_);
    let half = Z / (1.0 + z2 / n_) * (p * (1.0 - p) / n_ + z2 / (4.0 * n_ * n_)).sqrt();
    Interval {
        low: if p <= 0.0 { 0.0 } else { middle - half },
        high: if p >= 1.0 { 1.0 } else { middle + half },
    }
}

/// Pairs of yes and no, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pairs {
    /// Yes before and after.
    pub both: u64,
    /// No before, yes after.
    pub gained: u64,
    /// Yes before, no after.
    pub lost: u64,
    /// No before and after.
    pub neither: u64,
}

/// A difference, its interval, and the probability of one as large by chance where that is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// After less before.
    pub difference: f64,
    /// 95 % interval.
    pub interval: Interval,
    /// Exact two-sided p of McNemar's test.
    pub mcnemar_p: f64,
}

impl Pairs {
    /// Difference of the two shares: Newcombe 1998, method 10 (Wilson limits, phi with continuity correction). There
    /// must be a pair.
    pub fn difference(&self) -> Difference {
        let [a, b, c, d] = [self.both, self.gained, self.lost, self.neither].map(|count| count as f64);
        let n = self.both + self.gained + self.lost + self.neither;
        let n_ = n.max(1) as f64;
        let (p1, p2) = ((a + b) / n_, (a + c) / n_);
        let (i1, i2) = (wilson(self.both + self.gained, n), wilson(self.both + self.lost, n));
        let under = (a + b) * (c + d) * (a + c) * (b + d);
        let cross = a * d - b * c;
        let cross = if cross > 0.0 { (cross - n_ / 2.0).max(0.0) } else { cross };
        let phi = if under == 0.0 { 0.0 } else { cross / under.sqrt() };
        let width = |x: f64, y: f64| (x * x - 2.0 * phi * x * y + y * y).max(0.0).sqrt();
        Difference {
            difference: p1 - p2,
            interval: Interval {
                low: p1 - p2 - width(p1 - i1.low, i2.high - p2),
                high: p1 - p2 + width(p2 - i2.low, i1.high - p1),
            },
            mcnemar_p: mcnemar(self.gained, self.lost),
        }
    }
}

/// Exact two-sided p of `a` against `b`, each as likely as the other.
fn mcnemar(a: u64, b: u64) -> f64 {
    let (m, k) = (a + b, a.min(b));
    // Terms of the binomial distribution by their logarithms: 2^m does not fit for the largest sets.
    let (mut log, mut sum) = (-(m as f64) * std::f64::consts::LN_2, 0.0);
    for i in 0..=k {
        sum += log.exp();
        log += ((m - i) as f64).ln() - ((i + 1) as f64).ln();
    }
    (2.0 * sum).min(1.0)
}

/// SplitMix64.
#[derive(Debug, Clone, Copy)]
pub struct SplitMix(u64);

impl SplitMix {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// A sum that loses nothing to small terms beside large ones (Neumaier).
pub fn sum(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut total, mut lost) = (0.0_f64, 0.0);
    for value in values {
        let next = total + value;
        lost += if total.abs() >= value.abs() { (total - next) + value } else { (value - next) + total };
        total = next;
    }
    total + lost
}

/// 95 % percentile interval of the mean of one value a question: ranks 250 and 9751 of 10,000 sorted means. There must
/// be a value.
pub fn bootstrap(values: &[f64]) -> Interval {
    let n = values.len();
    let mut random = SplitMix::new(0);
    let mut pick = || values[((u128::from(random.draw()) * n as u128) >> 64) as usize];
    let mut means: Vec<f64> = (0..ROUNDS).map(|_| sum((0..n).map(|_| pick())) / n as f64).collect();
    means.sort_by(f64::total_cmp);
    Interval { low: means[ROUNDS * 25 / 1000 - 1], high: means[ROUNDS * 975 / 1000] }
}
