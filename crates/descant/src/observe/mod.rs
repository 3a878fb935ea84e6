//! What becomes of the events of a run: lines and bars for people, JSONL for everything else.

use descant_train::checkpoint::LogLengths;
use descant_train::{Event, Observer};

mod bar;
mod live;
mod pace;
mod progress;
mod reading;
mod records;
#[cfg(feature = "hub")]
mod transfer;
mod writing;

pub(crate) use pace::clock;
pub(crate) use progress::Progress;
pub(crate) use reading::Reading;
pub(crate) use records::{GRADIENTS, Records};
#[cfg(feature = "hub")]
pub(crate) use transfer::Transfer;
pub(crate) use writing::Writing;

/// Hands every event to each of them in turn.
pub(crate) struct Both<'a>(pub(crate) &'a mut dyn Observer, pub(crate) &'a mut dyn Observer);

impl Observer for Both<'_> {
    fn on(&mut self, event: &Event<'_>) {
        self.0.on(event);
        self.1.on(event);
    }

    fn logs(&mut self) -> descant_train::Result<LogLengths> {
        let mut logs = self.0.logs()?;
        logs.extend(self.1.logs()?);
        Ok(logs)
    }
}

/// A step with this loss, for tests.
#[cfg(test)]
pub(crate) fn step_of(step: u64, loss: f32) -> descant_train::StepMetrics {
    pace::tests::step(step, loss).0
}
