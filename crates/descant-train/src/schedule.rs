//! The learning rate of each step.

use crate::config::{Schedule, TrainConfig};

/// Rate of step `index`, from 0.
///
/// The warm-up climbs linearly from 0 at the first step to the peak at step `warmup_steps`, and the linear and
/// cosine schedules would reach 0 at step `max_steps`: `get_linear_schedule_with_warmup` of transformers.
pub(crate) fn learning_rate(config: &TrainConfig, index: u64) -> f64 {
    if index < config.warmup_steps {
        return config.learning_rate * index as f64 / config.warmup_steps as f64;
    }
    let span = (config.max_steps - config.warmup_steps).max(1) as f64;
    let progress = ((index - config.warmup_steps) as f64 / span).min(1.0);
    let factor = match config.schedule {
        Schedule::Linear => 1.0 - progress,
        Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        Schedule::Constant => 1.0,
    };
    config.learning_rate * factor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: Schedule, warmup_steps: u64, max_steps: u64) -> Vec<f64> {
        let config =
            TrainConfig { schedule, warmup_steps, max_steps, learning_rate: 2e-4, ..Default::default() };
        (0..max_steps).map(|i| learning_rate(&config, i)).collect()
    }

    #[track_caller]
    fn check(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?} != {expected:?}");
    }

    #[test]
    fn linear_is_that_of_transformers() {
        let expected = [0.0, 4e-5, 8e-5, 1.2e-4, 1.6e-4, 2e-4, 1.6e-4, 1.2e-4, 8e-5, 4e-5];
        check(&rates(Schedule::Linear, 5, 10), &expected);
    }

    #[test]
    fn without_warm_up_the_first_step_has_the_peak() {
        check(&rates(Schedule::Constant, 0, 3), &[2e-4; 3]);
        check(&rates(Schedule::Linear, 0, 2), &[2e-4, 1e-4]);
    }

    #[test]
    fn cosine_is_half_way_at_half_time() {
        check(&rates(Schedule::Cosine, 0, 4)[2..3], &[1e-4]);
    }

    #[test]
    fn a_run_that_is_all_warm_up_stays_finite() {
        check(&rates(Schedule::Linear, 2, 2), &[0.0, 1e-4]);
    }
}
