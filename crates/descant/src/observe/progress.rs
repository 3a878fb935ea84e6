//! Progress for people, on standard error: a bar on a terminal, a line every ten seconds anywhere else.

use std::time::{Duration, Instant};

use descant_train::{Event, Observer, StepMetrics, StepTiming};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::pace::{Pace, clock};
use crate::talk::Talk;

/// How often a line is written where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(10);
/// Columns of a label, of a bar, and of the blanks between the parts of a line.
const LABEL: usize = 11;
const BAR: usize = 24;
const GAPS: usize = 5;
/// How often a bar is redrawn.
const BETWEEN_FRAMES: Duration = Duration::from_millis(100);

/// Draws what it is told.
pub(crate) struct Progress {
    talk: Talk,
    pace: Pace,
    phase: String,
    total: Option<u64>,
    done: u64,
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Option<Instant>,
}

impl Progress {
    /// Draws nothing when `talk` does not show progress.
    pub(crate) fn new(talk: Talk) -> Self {
        Self {
            talk,
            pace: Pace::default(),
            phase: String::new(),
            total: None,
            done: 0,
            bar: None,
            started: Instant::now(),
            last_line: None,
        }
    }

    /// Takes in the steps of an earlier process, so that running means go on as if there had been none.
    pub(crate) fn replay<'a>(&mut self, steps: impl Iterator<Item = (&'a StepMetrics, &'a StepTiming)>) {
        steps.for_each(|(metrics, timing)| self.pace.add(metrics, *timing));
    }

    /// Ends the phase that is shown, if any, with a line of how long it took.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if !self.phase.is_empty() && self.talk.shows_progress() {
            let took = clock(self.started.elapsed().as_secs_f64());
            self.talk.item(&self.phase, format_args!("{} in {took}", self.count()));
        }
        self.phase.clear();
    }

    fn begin(&mut self, name: &str, total: Option<u64>) {
        self.finish();
        name.clone_into(&mut self.phase);
        (self.total, self.done, self.started, self.last_line) = (total, 0, Instant::now(), None);
        if self.talk.shows_progress() && self.talk.is_terminal() {
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(style(total.is_some()));
            bar.set_prefix(format!("{name:<11}"));
            bar.enable_steady_tick(BETWEEN_FRAMES);
            self.bar = Some(bar);
        }
    }

    fn advance(&mut self, done: u64, text: &str) {
        self.done = done;
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(text.to_owned());
        } else if self.talk.shows_progress() && self.is_time_for_a_line() {
            self.talk.item(&self.phase, format_args!("{}  {text}", self.count()).to_string().trim_end());
        }
    }

    /// The first line comes at once, so that one sees that it goes.
    fn is_time_for_a_line(&mut self) -> bool {
        let due = self.last_line.is_none_or(|last| last.elapsed() >= BETWEEN_LINES);
        if due {
            self.last_line = Some(Instant::now());
        }
        due
    }

    /// Columns of a line beside label, bar and count; all there are where no line is redrawn.
    fn room(&self) -> usize {
        if self.bar.is_none() {
            return usize::MAX;
        }
        let count = self.total.map_or(0, |total| 2 * total.to_string().len() + 1);
        self.talk.width().saturating_sub(LABEL + BAR + count + GAPS)
    }

    fn count(&self) -> String {
        match self.total {
            Some(total) => format!("{}/{total}", self.done),
            None => self.done.to_string(),
        }
    }
}

impl Observer for Progress {
    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Phase { name, total } => self.begin(name, *total),
            Event::Progress { done } => self.advance(*done, ""),
            Event::Step { metrics, timing, total } => {
                self.pace.add(metrics, *timing);
                let text = self.pace.describe(*total, self.room());
                self.advance(metrics.step, &text);
            }
            Event::Note { label, text } => match &self.bar {
                Some(bar) => bar.suspend(|| self.talk.item(label, text)),
                None => self.talk.item(label, text),
            },
            Event::Warning(text) => match &self.bar {
                Some(bar) => bar.suspend(|| self.talk.warn(text)),
                None => self.talk.warn(text),
            },
            // The enum grows; what is not known yet is not drawn.
            _ => {}
        }
    }
}

fn style(bounded: bool) -> ProgressStyle {
    let template =
        if bounded { "{prefix} {bar:24} {pos}/{len}  {msg}" } else { "{prefix} {spinner} {pos}  {msg}" };
    ProgressStyle::with_template(template).expect("the templates above are well formed").progress_chars("━╸─")
}
