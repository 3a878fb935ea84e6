//! What watches the loss and the gradient norm: a window of the last steps, and how far a new one lies outside.
//!
//! Method: z-score over the last 128 steps, as llm.c's outlier detector and Levanter's skip-step do.

use serde::{Deserialize, Serialize};

/// Steps in the window.
const WINDOW: usize = 128;
/// Steps before which nothing is called a spike.
const SETTLED: usize = 64;

/// What is done about a spike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnSpike {
    /// Say so.
    Warn,
    /// Say so, and leave the update out.
    Skip,
}

/// What is done about experts in fp8 that are further from bf16 than the gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnDeviation {
    /// Begin no run.
    #[default]
    Refuse,
    /// Say so.
    Warn,
}

impl OnDeviation {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_usual(&self) -> bool {
        *self == Self::Refuse
    }
}

/// Settings of the guards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct GuardConfig {
    /// Steps with a non-finite loss or gradient to skip before the run ends; 0 ends it at the first.
    pub skip_non_finite: u64,
    /// What to do on a spike.
    pub on_spike: OnSpike,
    /// Standard deviations from the mean of the window that count as a spike.
    pub spike_z: f64,
    /// What to do if a step with experts in fp8 is further from bf16 than the gates.
    // Left out where it is the usual, so that a run that was begun before this key was there goes on.
    #[serde(skip_serializing_if = "OnDeviation::is_usual")]
    #[cfg_attr(feature = "schema", schemars(extend("default" = "refuse")))]
    pub on_deviation: OnDeviation,
}

impl Default for GuardConfig {
    fn default() -> Self {
        let on_deviation = OnDeviation::default();
        Self { skip_non_finite: 0, on_spike: OnSpike::Warn, spike_z: 6.0, on_deviation }
    }
}

impl GuardConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// A text naming the key, its value and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        if self.spike_z.is_finite() && self.spike_z >= 1.0 {
            return Ok(());
        }
        Err(format!("guard.spike_z is {}; expected a number of at least 1", self.spike_z))
    }
}

/// Loss and gradient norm of the last steps, oldest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Window {
    /// Losses.
    pub losses: Vec<f32>,
    /// Gradient norms before clipping.
    pub norms: Vec<f32>,
}

impl Window {
    /// What is unusual about the step that comes next, if anything: text for people.
    pub fn spike(&self, loss: f32, norm: f32, limit: f64) -> Option<String> {
        [("loss", &self.losses, loss), ("gradient norm", &self.norms, norm)].into_iter().find_map(
            |(what, past, value)| {
                let z = z_score(past, value)?;
                (z.abs() > limit)
                    .then(|| format!("the {what} is {value}, {z:.1} standard deviations from its mean"))
            },
        )
    }

    /// Takes a step in.
    pub fn push(&mut self, loss: f32, norm: f32) {
        for (past, value) in [(&mut self.losses, loss), (&mut self.norms, norm)] {
            if past.len() >= WINDOW {
                past.drain(..=past.len() - WINDOW);
            }
            past.push(value);
        }
    }
}

/// How many standard deviations `value` lies from the mean; `None` before the window has settled.
fn z_score(past: &[f32], value: f32) -> Option<f64> {
    if past.len() < SETTLED {
        return None;
    }
    let n = past.len() as f64;
    let mean = past.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let variance = past.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
    let distance = f64::from(value) - mean;
    // A window of equal values makes no scale; then nothing is called a spike.
    (variance > 0.0).then(|| distance / variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(n: usize) -> Window {
        let mut window = Window::default();
        (0..n).for_each(|i| window.push(1.0 + (i % 2) as f32 * 0.1, 0.5));
        window
    }

    #[test]
    fn a_spike_is_one_in_both_directions_and_only_once_settled() {
        // Mean 1.05, deviation 0.05.
        let seen = |n, loss| filled(n).spike(loss, 0.5, 6.0).is_some();
        assert!(seen(64, 1.36) && seen(64, 0.74) && seen(1000, 1.36));
        assert!(!seen(64, 1.34) && !seen(64, 0.76));
        assert!(!seen(63, 100.0), "too early to say");
    }

    #[test]
    fn constant_norms_make_no_scale_and_the_window_forgets() {
        assert_eq!(filled(128).spike(1.0, 99.0, 6.0), None);
        let mut window = filled(500);
        assert_eq!(window.losses.len(), WINDOW);
        (0..WINDOW).for_each(|_| window.push(7.0, 7.0));
        assert_eq!((window.losses[0], window.norms[0]), (7.0, 7.0));
    }

    #[test]
    fn the_text_says_what_and_by_how_much() {
        let said = filled(64).spike(2.05, 0.5, 6.0).unwrap();
        assert_eq!(said, "the loss is 2.05, 20.0 standard deviations from its mean");
        assert!(GuardConfig { spike_z: f64::NAN, ..GuardConfig::default() }.validate().is_err());
    }
}
