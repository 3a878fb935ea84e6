//! Times of stages on a card, while recording is on.

use std::sync::{Mutex, PoisonError};

use super::event::Event;

/// What was recorded, if recording is on.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Option<Vec<Recorded>>>);

#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) name: &'static str,
    pub(super) flops: f64,
    pub(super) bytes: f64,
    pub(super) start: Event,
    pub(super) end: Event,
}

impl Recorder {
    /// Whether times are recorded.
    pub(crate) fn is_on(&self) -> bool {
        self.with(|recorded| recorded.is_some())
    }

    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Option<Vec<Recorded>>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
