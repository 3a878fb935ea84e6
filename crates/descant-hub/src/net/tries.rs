//! Trying again: how often, and how long to wait before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::client::Failure;
use super::config::Patience;
use super::event::{Event, Watch};
use crate::error::{Error, Result};

/// How long a sleeper takes to see that it is no longer wanted.
const NAP: Duration = Duration::from_millis(50);

/// Counts failures in a row.
pub(crate) struct Tries<'a> {
    patience: &'a Patience,
    stop: &'a AtomicBool,
    watch: &'a dyn Watch,
    what: &'a str,
    failed: u32,
}

impl<'a> Tries<'a> {
    pub(crate) fn new(
        patience: &'a Patience,
        stop: &'a AtomicBool,
        watch: &'a dyn Watch,
        what: &'a str,
    ) -> Self {
        Self { patience, stop, watch, what, failed: 0 }
    }

    /// Runs `work` until it succeeds, cannot succeed, or failed too often.
    pub(crate) fn run<T>(mut self, mut work: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        loop {
            match work() {
                Ok(value) => return Ok(value),
                Err(failure) => self.after(failure)?,
            }
        }
    }

    /// Something was achieved: what failed before does not count any more.
    pub(crate) fn progress(&mut self) {
        self.failed = 0;
    }

    /// Waits until the next try.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn after(&mut self, failure: Failure) -> Result<()> {
        if !failure.again {
            return Err(failure.error);
        }
        self.failed += 1;
        if self.failed >= self.patience.tries {
            return Err(Error::GaveUp { tries: self.failed, last: Box::new(failure.error) });
        }
        let doubled = self.patience.pause.saturating_mul(1 << (self.failed - 1).min(16));
        let pause = match failure.wish {
            Some(wish) if wish > self.patience.longest_pause => {
                let url = match failure.error {
                    Error::Status { url, .. } => url,
                    other => other.to_string(),
                };
                return Err(Error::Later { url, seconds: wish.as_secs() });
            }
            Some(wish) => wish,
            None => doubled.min(self.patience.longest_pause),
        };
        self.watch.on(&Event::Again { what: self.what, error: &failure.error, pause });
        let until = Instant::now() + pause;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            std::thread::sleep(left.min(NAP));
        }
        Ok(())
    }
}
