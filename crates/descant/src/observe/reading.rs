//! The reading of a data set for people, on standard error: rows, rate and time left.

use std::time::{Duration, Instant};

use descant_harmony::prepare::Progress;
use indicatif::ProgressBar;

use super::bar::{BETWEEN_LINES, Counted, bar};
use super::clock;
use crate::talk::Talk;
use crate::words::grouped;

/// Before this a rate would be a guess, and a bar would only flash.
const BEFORE_RATE: Duration = Duration::from_millis(500);

/// Shows how far a data set is read.
pub(crate) struct Reading {
    talk: Talk,
    started: Instant,
    last_line: Instant,
    progress: Progress,
    bar: Option<ProgressBar>,
}

impl Reading {
    /// Shows nothing yet.
    pub(crate) fn new(talk: Talk) -> Self {
        let now = Instant::now();
        Self { talk, started: now, last_line: now, progress: Progress::default(), bar: None }
    }

    /// Shows this.
    pub(crate) fn on(&mut self, progress: Progress) {
        self.progress = progress;
        let elapsed = self.started.elapsed();
        if !self.talk.shows_progress() || elapsed < BEFORE_RATE {
            return;
        }
        if self.talk.is_terminal() {
            let bar = self.bar.get_or_insert_with(|| bar("reading", progress.of, Counted::Percent));
            bar.set_position(progress.bytes);
            bar.set_message(text(progress, elapsed));
        } else if self.last_line.elapsed() >= BETWEEN_LINES {
            self.last_line = Instant::now();
            let share = 100 * progress.bytes / progress.of.max(1);
            self.talk.item("reading", format_args!("{share} %  {}", text(progress, elapsed)));
        }
    }

    /// Says something between two states of the bar.
    pub(crate) fn aside<T>(&self, say: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }

    /// Takes the bar away; says how long it took where that was long.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let elapsed = self.started.elapsed();
        if elapsed >= BETWEEN_LINES {
            let rows = grouped(self.progress.rows);
            self.talk.item("read", format_args!("{rows} rows in {}", clock(elapsed.as_secs_f64())));
        }
    }
}

/// Rows, rate, and the time that the rest would take.
fn text(progress: Progress, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let rows = grouped(progress.rows);
    let rate = grouped((progress.rows as f64 / seconds) as u64);
    let rest = progress.of.saturating_sub(progress.bytes) as f64;
    let left = clock(seconds * rest / progress.bytes.max(1) as f64);
    format!("{rows} rows  {rate} rows/s  {left} left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_rate_and_time_left_are_those_of_the_bytes() {
        let progress = Progress { rows: 20_000, bytes: 25, of: 100 };
        assert_eq!(text(progress, Duration::from_secs(10)), "20,000 rows  2,000 rows/s  0:30 left");
    }
}
