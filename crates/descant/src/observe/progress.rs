//! Progress for people, on standard error: one live line on a terminal, lines of their own anywhere else.
//!
//! A line of a log has the time since the command began, and comes at the beginning of each part, at units 1, 2, 5, 10,
//! 20, 50 and so on of the steps, every half minute, and at the end.

use std::time::{Duration, Instant};

use descant_train::{Event, Observer, StepMetrics, StepTiming};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::live::{Live, count};
use super::pace::{Pace, clock};
use crate::talk::Talk;

/// How often a line is written if output is not a terminal, beside those at round numbers.
const BETWEEN_LINES: Duration = Duration::from_secs(30);
/// Before this an estimate of the time left would be a guess.
const BEFORE_ETA: Duration = Duration::from_secs(2);
/// Redrawn at most so often in a second.
const FRAMES: u8 = 10;

/// A part of a command.
struct Phase {
    name: String,
    total: Option<u64>,
    done: u64,
    /// Done when this process took it up.
    at_start: Option<u64>,
    started: Instant,
    last_line: Instant,
    /// Whether its units are steps, which report more than their number.
    steps: bool,
}

/// Draws events.
pub(crate) struct Progress {
    talk: Talk,
    pace: Pace,
    began: Instant,
    phase: Option<Phase>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Draws nothing when `talk` does not show progress.
    pub(crate) fn new(talk: Talk) -> Self {
        Self { talk, pace: Pace::default(), began: Instant::now(), phase: None, bar: None }
    }

    /// Takes in the steps of an earlier process, so that running means continue as if there had been none.
    pub(crate) fn replay<'a>(&mut self, steps: impl Iterator<Item = (&'a StepMetrics, &'a StepTiming)>) {
        steps.for_each(|(metrics, timing)| self.pace.add(metrics, *timing));
    }

    /// Ends the part that is shown, if any, with a line of how long it took.
    pub(crate) fn finish(&mut self) {
        self.finish_with("");
    }

    /// As [`finish`](Self::finish), with what came of it.
    fn finish_with(&mut self, outcome: &str) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let Some(phase) = self.phase.take() else { return };
        if !self.talk.shows_progress() {
            return;
        }
        let took = clock(phase.started.elapsed().as_secs_f64());
        let done = count(phase.done, phase.total);
        let of_steps = if phase.steps { self.pace.last_step() } else { String::new() };
        let parts = ["", &of_steps, outcome];
        let parts: Vec<&str> = parts
            .into_iter()
            .enumerate()
            .filter(|(at, text)| *at == 0 || !text.is_empty())
            .map(|(_, text)| text)
            .collect();
        let outcome = parts.join("  ");
        if self.talk.is_terminal() {
            self.talk.item(&phase.name, format_args!("{done} in {took}{outcome}"));
        } else {
            self.line(&phase.name, &format!("{done} in {took}{outcome}"));
        }
    }

    fn begin(&mut self, name: &str, total: Option<u64>) {
        self.finish();
        let now = Instant::now();
        let phase = Phase {
            name: name.to_owned(),
            total,
            done: 0,
            at_start: None,
            started: now,
            last_line: now,
            steps: false,
        };
        self.phase = Some(phase);
        if !self.talk.shows_progress() {
            return;
        }
        if self.talk.is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(FRAMES));
            // The width may change between two frames: what is drawn is cut at the terminal's own.
            let style = ProgressStyle::with_template("{wide_msg}").expect("the template is well formed");
            bar.set_style(style);
            self.bar = Some(bar);
            self.draw();
        } else {
            self.line(name, &count(0, total));
        }
    }

    fn advance(&mut self, done: u64, is_step: bool) {
        let Some(phase) = &mut self.phase else { return };
        phase.at_start.get_or_insert(if is_step { done.saturating_sub(1) } else { done });
        (phase.done, phase.steps) = (done, is_step);
        if !self.talk.shows_progress() {
            return;
        }
        if self.bar.is_some() {
            self.draw();
            return;
        }
        // The last unit is in the line that ends the part.
        let due = is_step && is_round(done) || phase.last_line.elapsed() >= BETWEEN_LINES;
        if due && phase.total != Some(done) {
            phase.last_line = Instant::now();
            let (name, count) = (phase.name.clone(), count(done, phase.total));
            let numbers = if is_step { format!("  {}", self.pace.last_step()) } else { String::new() };
            self.line(&name, &format!("{count}{numbers}"));
        }
    }

    /// Redraws the live line.
    fn draw(&self) {
        let (Some(bar), Some(phase)) = (&self.bar, &self.phase) else { return };
        let numbers = if phase.steps { self.pace.numbers() } else { Vec::new() };
        let live = Live {
            name: &phase.name,
            done: phase.done,
            total: phase.total,
            seconds_left: self.seconds_left(phase),
            numbers: &numbers,
            utf8: self.talk.shows_utf8(),
        };
        bar.set_message(live.line(self.talk.width()));
    }

    fn seconds_left(&self, phase: &Phase) -> Option<f64> {
        let total = phase.total?;
        if phase.steps {
            return self.pace.seconds_left(total);
        }
        let here = phase.done.checked_sub(phase.at_start?).filter(|here| *here > 0)?;
        let took = Some(phase.started.elapsed()).filter(|took| *took >= BEFORE_ETA)?;
        Some(took.as_secs_f64() / here as f64 * total.saturating_sub(phase.done) as f64)
    }

    /// A line of a log: when, what, how far.
    fn line(&self, name: &str, text: &str) {
        let at = clock(self.began.elapsed().as_secs_f64());
        self.talk.say(format_args!("{at}  {name:<8} {text}"));
    }

    /// Says something above the live line, or as a line of the log.
    fn note(&self, label: &str, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.talk.item(label, text)),
            None if self.talk.shows_progress() && !self.talk.is_terminal() => self.line(label, text),
            None => self.talk.item(label, text),
        }
    }
}

/// 1, 2, 5, 10, 20, 50 and so on.
fn is_round(n: u64) -> bool {
    let mut rest = n;
    while rest >= 10 && rest.is_multiple_of(10) {
        rest /= 10;
    }
    matches!(rest, 1 | 2 | 5)
}

impl Observer for Progress {
    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Phase { name, total } => self.begin(name, *total),
            Event::Progress { done } => self.advance(*done, false),
            Event::Step { metrics, timing, .. } => {
                self.pace.add(metrics, *timing);
                self.advance(metrics.step, true);
            }
            // What came of the part that is shown ends it.
            Event::Note { label, text } if self.phase.as_ref().is_some_and(|phase| phase.name == *label) => {
                self.finish_with(text);
            }
            Event::Note { label, text } => self.note(label, text),
            Event::Warning(text) => match &self.bar {
                Some(bar) => bar.suspend(|| self.talk.warn(text)),
                None => self.talk.warn(text),
            },
            // The enum grows; what is not known yet is not drawn.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_numbers_are_one_two_five_and_their_tens() {
        let round: Vec<u64> = (0..=1000).filter(|n| is_round(*n)).collect();
        assert_eq!(round, [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]);
    }
}
