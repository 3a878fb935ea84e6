//! What the steps of a run were to the processes that shared them, summed up for the end.

use descant_train::{Event, Observer, Shared};

use crate::words::significant;

/// Sums over steps.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    steps: f64,
    seconds: f64,
    idle: f64,
    exchange: f64,
    bytes: f64,
    workers: usize,
}

impl Observer for Shares {
    fn on(&mut self, event: &Event<'_>) {
        let Event::Step { timing, .. } = event else { return };
        let Some(Shared { workers, idle, exchange_seconds, exchange_bytes, .. }) = timing.shared else {
            return;
        };
        self.steps += 1.0;
        self.seconds += timing.seconds;
        // Seconds in which they did not wait for each other weigh nothing: the share is one of all time.
        self.idle += idle * (timing.seconds - exchange_seconds).max(0.0);
        self.exchange += exchange_seconds;
        self.bytes += exchange_bytes as f64;
        self.workers = workers;
    }
}

impl Shares {
    /// For people; nothing where the steps were not shared.
    pub(crate) fn words(&self) -> Option<String> {
        (self.steps > 0.0).then(|| {
            format!(
                "{} of them; {} % of their time idle, gradients {} ms a step ({} MB)",
                self.workers,
                significant(100.0 * self.idle / self.seconds.max(f64::MIN_POSITIVE)),
                significant(1e3 * self.exchange / self.steps),
                significant(self.bytes / self.steps / 1e6)
            )
        })
    }
}
