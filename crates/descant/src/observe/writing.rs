//! An export for people, on standard error: a bar with bytes, rate and time left, or a line every ten seconds.

use std::time::{Duration, Instant};

use descant_export::Progress;
use indicatif::ProgressBar;

use super::bar::{BETWEEN_LINES, Counted, bar};
use super::clock;
use crate::talk::Talk;
use crate::words::MIB;

/// Before this a rate would be a guess.
const BEFORE_RATE: Duration = Duration::from_secs(2);

/// Shows how far an export is.
pub(crate) struct Writing {
    talk: Talk,
    total: u64,
    written: u64,
    started: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Writing {
    /// Shows nothing yet.
    pub(crate) fn new(talk: Talk) -> Self {
        let now = Instant::now();
        Self { talk, total: 0, written: 0, started: now, last_line: now, bar: None }
    }

    /// Takes in how far it is.
    pub(crate) fn on(&mut self, progress: Progress) {
        match progress {
            Progress::Planned(total) => {
                (self.total, self.started) = (total, Instant::now());
                if self.talk.shows_progress() && self.talk.is_terminal() {
                    self.bar = Some(bar("writing", total, Counted::Bytes));
                }
            }
            Progress::Written(written) => {
                self.written = written;
                let text = rate(self.total, written, self.started.elapsed());
                if let Some(bar) = &self.bar {
                    bar.set_position(written);
                    bar.set_message(text);
                } else if self.talk.shows_progress() && self.last_line.elapsed() >= BETWEEN_LINES {
                    self.last_line = Instant::now();
                    let (written, total) = (mib(written), mib(self.total));
                    self.talk
                        .item("writing", format_args!("{written} of {total}  {text}").to_string().trim_end());
                }
            }
        }
    }

    /// Takes the bar away, and says how long it took.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if self.total > 0 && self.written >= self.total.saturating_sub(self.total / 100) {
            let took = self.started.elapsed().as_secs_f64();
            self.talk.item("written", format_args!("{} in {}", mib(self.written), clock(took)));
        }
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / MIB)
}

/// Rate and time left, once they are more than a guess.
fn rate(total: u64, written: u64, elapsed: Duration) -> String {
    if elapsed < BEFORE_RATE || written == 0 {
        return String::new();
    }
    let per_second = written as f64 / elapsed.as_secs_f64();
    let left = total.saturating_sub(written) as f64 / per_second;
    format!("{}/s  {} left", mib(per_second as u64), clock(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_come_when_they_mean_something() {
        assert_eq!(rate(100 << 20, 50 << 20, Duration::from_secs(1)), "");
        assert_eq!(rate(100 << 20, 50 << 20, Duration::from_secs(10)), "5.0 MiB/s  0:10 left");
    }
}
