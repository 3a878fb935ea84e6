//! The numbers beside a live line: smoothed loss, tokens a second, time left. Arithmetic only.

use std::fmt::Write as _;

use descant_train::{StepMetrics, StepTiming};

use crate::words::grouped;

/// Weight of the past in the running means.
const MEMORY: f64 = 0.9;
/// Before this many steps a time left would be a guess.
const STEPS_BEFORE_ETA: u64 = 20;

/// Running means over the steps so far.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    steps: u64,
    loss: f64,
    seconds: f64,
    tokens: f64,
    last: Option<StepMetrics>,
}

impl Pace {
    /// Takes one step in.
    pub(crate) fn add(&mut self, metrics: &StepMetrics, timing: StepTiming) {
        self.steps += 1;
        for (mean, value) in [
            (&mut self.loss, f64::from(metrics.loss)),
            (&mut self.seconds, timing.seconds),
            (&mut self.tokens, metrics.tokens as f64),
        ] {
            *mean = MEMORY * *mean + (1.0 - MEMORY) * value;
        }
        self.last = Some(metrics.clone());
    }

    /// Mean loss of the last steps, the latest weighing most. Not pulled towards zero at the start.
    pub(crate) fn loss(&self) -> f64 {
        self.loss / (1.0 - MEMORY.powf(self.steps as f64))
    }

    /// Tokens that go through the model in a second, over the last steps.
    pub(crate) fn tokens_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.tokens / self.seconds } else { 0.0 }
    }

    /// Seconds left when the run has `total` steps.
    pub(crate) fn seconds_left(&self, total: u64) -> Option<f64> {
        let step = self.last.as_ref()?.step;
        let mean = self.seconds / (1.0 - MEMORY.powf(self.steps as f64));
        (self.steps >= STEPS_BEFORE_ETA).then(|| mean * total.saturating_sub(step) as f64)
    }

    /// The numbers beside a live line, most wanted first: loss, first token, tokens a second, rate.
    pub(crate) fn numbers(&self) -> Vec<String> {
        let Some(last) = &self.last else { return Vec::new() };
        let mut numbers = vec![format!("loss {:.3}", self.loss())];
        // One token of each reply decides its language; the mean over all tokens hides it.
        numbers.extend(last.first_analysis_loss.map(|first| format!("first token {first:.2}")));
        numbers.push(format!("{} tokens/s", two_digits(self.tokens_per_second())));
        numbers.push(format!("rate {:.1e}", last.learning_rate));
        numbers
    }

    /// The last step for a line of its own: exact where a live line is smoothed.
    pub(crate) fn last_step(&self) -> String {
        let Some(last) = &self.last else { return String::new() };
        let mut text = format!("loss {:.4}", last.loss);
        if let Some(first) = last.first_analysis_loss {
            let _ = write!(text, "  first token {first:.2}");
        }
        text + &format!(
            "  rate {:.1e}  {} tokens/s",
            last.learning_rate,
            two_digits(self.tokens_per_second())
        )
    }
}

/// `value` with two significant digits, without an exponent.
fn two_digits(value: f64) -> String {
    if !(value.is_finite() && value > 0.0) {
        return "0".to_owned();
    }
    let unit = 10f64.powf(value.log10().floor() - 1.0);
    let rounded = (value / unit).round() * unit;
    if unit < 1.0 { format!("{rounded:.1}") } else { grouped(rounded as u64) }
}

/// Seconds as `m:ss` or `h:mm:ss`.
pub(crate) fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
pub(super) mod tests {
    use descant_train::Experts;

    use super::*;

    /// A step with this loss that took half a second for 1,000 tokens.
    pub(in super::super) fn step(step: u64, loss: f32) -> (StepMetrics, StepTiming) {
        let metrics = StepMetrics {
            step,
            loss,
            loss_bits: loss.to_bits(),
            first_analysis_loss: (step == 1).then_some(12.6),
            learning_rate: 5e-3,
            grad_norm: 1.0,
            samples: 16,
            tokens: 1000,
            trained_tokens: 400,
            epoch: 0.1,
            skipped: 0,
            experts: Experts::default(),
            validation: None,
        };
        (metrics, StepTiming { step, seconds: 0.5, tokens_per_second: 2000.0, shared: None })
    }

    fn after(steps: u64) -> Pace {
        let mut pace = Pace::default();
        (1..=steps).map(|n| step(n, 0.25)).for_each(|(metrics, timing)| pace.add(&metrics, timing));
        pace
    }

    #[test]
    fn constant_steps_have_their_own_mean_from_the_first_on() {
        for steps in [1, 2, 30] {
            assert!((after(steps).loss() - 0.25).abs() < 1e-9);
            assert!((after(steps).tokens_per_second() - 2000.0).abs() < 1e-9);
        }
    }

    #[test]
    fn the_latest_step_weighs_most() {
        let mut pace = after(30);
        let (metrics, timing) = step(31, 1.25);
        pace.add(&metrics, timing);
        assert!(pace.loss() > 0.34 && pace.loss() < 0.36, "{}", pace.loss());
    }

    #[test]
    fn time_left_is_said_after_twenty_steps() {
        assert_eq!(after(19).seconds_left(60), None);
        let left = after(20).seconds_left(60).unwrap();
        assert!((left - 20.0).abs() < 1e-9, "{left}");
        assert_eq!(after(60).seconds_left(60).map(clock).unwrap(), "0:00");
    }

    #[test]
    fn numbers_come_most_wanted_first() {
        assert_eq!(after(1).numbers(), ["loss 0.250", "first token 12.60", "2,000 tokens/s", "rate 5.0e-3"]);
        assert_eq!(after(20).numbers(), ["loss 0.250", "2,000 tokens/s", "rate 5.0e-3"]);
        assert_eq!(after(1).last_step(), "loss 0.2500  first token 12.60  rate 5.0e-3  2,000 tokens/s");
        assert_eq!(Pace::default().numbers(), Vec::<String>::new());
        assert_eq!(Pace::default().last_step(), "");
    }

    #[test]
    fn two_digits_and_clocks() {
        let cases =
            [(0.0, "0"), (f64::NAN, "0"), (0.5, "0.5"), (1.24, "1.2"), (12.6, "13"), (4321.0, "4,300")];
        for (value, text) in cases {
            assert_eq!(two_digits(value), text);
        }
        for (seconds, text) in [(0.0, "0:00"), (59.6, "1:00"), (3599.0, "59:59"), (3600.0, "1:00:00")] {
            assert_eq!(clock(seconds), text);
        }
    }
}
