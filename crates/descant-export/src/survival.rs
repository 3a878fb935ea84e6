//! What is left of an update once the sum with the weight was rounded.
//!
//! With `W` the weight, `D` the update, `e` what rounding adds: `got = D + e` is what the export has of the update.

use std::ops::AddAssign;

use serde::Serialize;

/// Sums over the numbers of a weight, in f64.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sums {
    /// `W . W`
    pub(crate) weight: f64,
    /// `D . D`
    pub(crate) update: f64,
    /// `e . D`
    pub(crate) along: f64,
    /// `e . e`
    pub(crate) error: f64,
    /// `e . e` in the space that the adapter's A reads; `None` where the numbers are not packed.
    pub(crate) read: Option<f64>,
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.weight += other.weight;
        self.update += other.update;
        self.along += other.along;
        self.error += other.error;
        self.read = match (self.read, other.read) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0.0) + b.unwrap_or(0.0)),
        };
    }
}

/// What survived of an update.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Survival {
    /// Size of the update, in shares of the weight's.
    pub update: f64,
    /// What the export has along the update: 1 is all of it.
    pub along: f64,
    /// Cosine between what the export has and the update.
    pub cosine: f64,
    /// Size of what the export has, in shares of the update's.
    pub norm_ratio: f64,
    /// Size of the rounding, in shares of the weight's.
    pub error: f64,
    /// Size of the rounding in the space that the adapter's A reads, in shares of the update's; for MXFP4 only.
    pub a_error: Option<f64>,
}

impl Sums {
    /// The shares; `None` without an update.
    pub(crate) fn survival(&self) -> Option<Survival> {
        if self.update <= 0.0 {
            return None;
        }
        let got = (self.update + 2.0 * self.along + self.error).max(0.0);
        let cosine = if got > 0.0 { (self.update + self.along) / (self.update * got).sqrt() } else { 0.0 };
        Some(Survival {
            update: share(self.update, self.weight),
            along: 1.0 + self.along / self.update,
            cosine,
            norm_ratio: share(got, self.update),
            error: share(self.error, self.weight),
            a_error: self.read.map(|read| share(read, self.update)),
        })
    }
}

/// Sums that are added up side by side: as many as there are registers for.
const LANES: usize = 4;

/// The sums of one row, whose weight is `before`, and `after` once the update `delta` was added.
pub(crate) fn row_sums(before: &[f32], after: &[f32], delta: &[f32], round: impl Fn(f32) -> f32) -> Sums {
    let mut lanes = [[0.0_f64; LANES]; 4];
    let mut add = |before: &[f32; LANES], after: &[f32; LANES], delta: &[f32; LANES]| {
        let [weight, update, along, error] = &mut lanes;
        for lane in 0..LANES {
            let (w, d) = (f64::from(before[lane]), f64::from(delta[lane]));
            let e = f64::from(round(after[lane])) - f64::from(after[lane]);
            weight[lane] += w * w;
            update[lane] += d * d;
            along[lane] += e * d;
            error[lane] += e * e;
        }
    };
    let ((before, last_before), (after, last_after), (delta, last_delta)) =
        (before.as_chunks(), after.as_chunks(), delta.as_chunks());
    for ((before, after), delta) in before.iter().zip(after).zip(delta) {
        add(before, after, delta);
    }
    // Zeros add nothing.
    let padded = |last: &[f32]| {
        let mut whole = [0.0; LANES];
        whole[..last.len()].copy_from_slice(last);
        whole
    };
    add(&padded(last_before), &padded(last_after), &padded(last_delta));
    let [weight, update, along, error] = lanes.map(|lanes| lanes.iter().sum());
    Sums { weight, update, along, error, read: None }
}

/// The square root of a quotient of squares.
pub(crate) fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_that_is_lost_altogether_and_one_that_is_kept() {
        let lost = Sums { weight: 100.0, update: 1.0, along: -1.0, error: 1.0, read: Some(1.0) };
        let lost = lost.survival().unwrap();
        assert!(
            (lost.update - 0.1).abs() < 1e-12 && lost.along.abs() < 1e-12 && lost.norm_ratio.abs() < 1e-12
        );
        assert_eq!((lost.cosine, lost.a_error), (0.0, Some(1.0)));
        let mut kept = Sums { weight: 50.0, update: 0.5, ..Sums::default() };
        kept += kept;
        let kept = kept.survival().unwrap();
        assert!((kept.along - 1.0).abs() < 1e-12 && (kept.cosine - 1.0).abs() < 1e-12 && kept.error == 0.0);
        assert_eq!(Sums::default().survival(), None);
    }
}
