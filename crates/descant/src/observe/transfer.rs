//! A download for people, on standard error: a bar with rate and time left, or a line every ten seconds.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use descant_hub::{Event, Watch};
use indicatif::ProgressBar;

use super::bar::{BETWEEN_LINES, Counted, bar};
use super::clock;
use crate::talk::Talk;

/// Before this a rate would be a guess.
const BEFORE_RATE: Duration = Duration::from_secs(2);

/// Shows what a hub reports.
pub(crate) struct Transfer {
    talk: Talk,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes that will be there.
    total: u64,
    /// Bytes that are.
    present: u64,
    /// Bytes that came since the plan was reported.
    received: u64,
    started: Option<Instant>,
    last_line: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl Transfer {
    /// Shows nothing yet.
    pub(crate) fn new(talk: Talk) -> Self {
        Self { talk, state: Mutex::new(State::default()) }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = self.state().bar.take() {
            bar.finish_and_clear();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, total: u64, present: u64) {
        let mut state = self.state();
        (state.total, state.present, state.received) = (total, present, 0);
        state.started = Some(Instant::now());
        if self.talk.shows_progress() && self.talk.is_terminal() && present < total {
            let bar = bar("fetching", total, Counted::Bytes);
            bar.set_position(present);
            state.bar = Some(bar);
        }
    }

    fn advance(&self, change: impl Fn(u64) -> u64) {
        let mut state = self.state();
        let Some(started) = state.started else { return };
        let before = state.present;
        state.present = change(before).min(state.total);
        state.received += state.present.saturating_sub(before);
        let text = rate(&state, started.elapsed());
        if let Some(bar) = &state.bar {
            bar.set_position(state.present);
            bar.set_message(text);
        } else if self.talk.shows_progress()
            && started.elapsed() >= BETWEEN_LINES
            && state.last_line.is_none_or(|last| last.elapsed() >= BETWEEN_LINES)
        {
            state.last_line = Some(Instant::now());
            let (present, total) = (size(state.present), size(state.total));
            self.talk.item("fetching", format_args!("{present} of {total}  {text}").to_string().trim_end());
        }
    }

    fn aside(&self, say: impl FnOnce()) {
        match &self.state().bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }
}

impl Watch for Transfer {
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::Resolved { repo, commit } => self.talk.item("fetch", format_args!("{repo} at {commit}")),
            Event::Planned { files, bytes, present, cache } => {
                let files = if *files == 1 { "1 file".to_owned() } else { format!("{files} files") };
                let (all, cache) = (size(*bytes), cache.display());
                match *present {
                    0 => self.talk.item("to come", format_args!("{files}, {all}, to {cache}")),
                    here if here >= *bytes => {
                        self.talk.item("here", format_args!("{files}, {all}, in {cache}"));
                    }
                    here => {
                        let here = size(here);
                        self.talk.item(
                            "to come",
                            format_args!("{files}, {all}, to {cache}; {here} of it is here"),
                        );
                    }
                }
                self.begin(*bytes, *present);
            }
            Event::Received { bytes } => self.advance(|present| present + bytes),
            Event::Lost { bytes } => self.advance(|present| present.saturating_sub(*bytes)),
            Event::Finished { file } => self.aside(|| self.talk.detail(file)),
            Event::Again { what, error, pause } => self.aside(|| {
                self.talk.warn(format_args!("{what}: {error}; retrying in {:.0} s", pause.as_secs_f64()));
            }),
            Event::Damaged { file } => {
                self.aside(|| {
                    self.talk.warn(format_args!("{file} in the cache is damaged, fetching it again"));
                });
            }
            Event::Waiting { file } => {
                self.aside(|| {
                    self.talk.say(format_args!("{file}: waiting for another process that is downloading it"));
                });
            }
            // The enum grows; what is not known yet is not shown.
            _ => {}
        }
    }
}

/// Rate and time left, once they are more than a guess.
fn rate(state: &State, elapsed: Duration) -> String {
    if elapsed < BEFORE_RATE || state.received == 0 {
        return String::new();
    }
    let per_second = state.received as f64 / elapsed.as_secs_f64();
    let left = (state.total - state.present) as f64 / per_second;
    format!("{}/s  {} left", size(per_second as u64), clock(left))
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if value < 1000.0 {
            return if unit == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "1.0 KiB"),
            (13_760_000_000, "12.8 GiB"),
            (1 << 44, "16.0 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn rate_and_time_left_come_when_they_mean_something() {
        let state = State { total: 100 << 20, present: 50 << 20, received: 20 << 20, ..State::default() };
        assert_eq!(rate(&state, Duration::from_secs(1)), "");
        assert_eq!(rate(&state, Duration::from_secs(10)), "2.0 MiB/s  0:25 left");
    }
}
