//! What somebody asks of an evaluation: `--at-least MEASURE=PERCENT`.

use crate::cell::Cell;
use crate::change::Measure;
use crate::error::{Error, Result};
use crate::evaluation::Evaluation;

/// What is asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Hit,
    Answer,
    Valid,
    Present,
    Ended,
    Right,
    RightGivenReasoning,
    SpillOver,
    RightChange,
}

const NAMES: [(&str, Of); 9] = [
    ("hit", Of::Hit),
    ("answer", Of::Answer),
    ("valid", Of::Valid),
    ("present", Of::Present),
    ("ended", Of::Ended),
    ("right", Of::Right),
    ("right-given-reasoning", Of::RightGivenReasoning),
    ("spill-over", Of::SpillOver),
    ("right-change", Of::RightChange),
];

/// A limit on a measure.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    text: String,
    of: Of,
    percent: f64,
}

impl std::str::FromStr for Threshold {
    type Err = Error;

    /// `MEASURE=PERCENT`; a number alone is `hit=PERCENT`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |reason: String| Error::Threshold { text: text.to_owned(), reason };
        let (name, number) = text.split_once('=').unwrap_or(("hit", text));
        let known = NAMES.iter().find(|(known, _)| *known == name.trim());
        let of = known.map(|(_, of)| *of).ok_or_else(|| {
            wrong(format!("no measure `{name}`; there are {}", NAMES.map(|(name, _)| name).join(", ")))
        })?;
        let percent: f64 = number.trim().parse().map_err(|_| wrong(format!("`{number}` is not a number")))?;
        let least = if of == Of::RightChange { -100.0 } else { 0.0 };
        if !(least..=100.0).contains(&percent) {
            return Err(wrong(format!("{percent} is not from {least} to 100")));
        }
        Ok(Self { text: format!("{}={}", name.trim(), number.trim()), of, percent })
    }
}

impl Threshold {
    /// A line for each place where the evaluation misses it.
    ///
    /// # Errors
    /// Nothing was measured that it asks about.
    pub fn misses(&self, evaluation: &Evaluation) -> Result<Vec<String>> {
        match self.of {
            Of::SpillOver => self.spill_over(evaluation),
            Of::RightChange => self.right_change(evaluation),
            _ => self.cells(evaluation),
        }
    }

    fn no_data(&self, why: &str) -> Error {
        Error::Threshold { text: self.text.clone(), reason: format!("nothing was measured: {why}") }
    }

    fn cells(&self, evaluation: &Evaluation) -> Result<Vec<String>> {
        let plain_too = !matches!(self.of, Of::Hit | Of::Answer);
        let mut misses = Vec::new();
        let mut any = false;
        for cell in &evaluation.latest().cells {
            let asked = match cell.asked.as_str() {
                "any" => "a language asked",
                "none" if plain_too => "none asked",
                _ => continue,
            };
            let (count, of) = self.share(cell);
            if of == 0 {
                continue;
            }
            any = true;
            let share = 100.0 * count as f64 / of as f64;
            if share < self.percent {
                misses.push(format!(
                    "{}: {} effort, {asked}: {count} of {of} are {share:.1} %",
                    self.text, cell.effort
                ));
            }
        }
        if any { Ok(misses) } else { Err(self.no_data("no question has it")) }
    }

    fn share(&self, cell: &Cell) -> (u64, u64) {
        match self.of {
            Of::Hit => (cell.hit, cell.n),
            Of::Answer => (cell.answer_hit, cell.answer_asked),
            Of::Valid => (cell.valid, cell.n),
            Of::Present => (cell.analysis.present, cell.n),
            Of::Ended => (cell.ended, cell.n),
            Of::Right => (cell.right, cell.scored),
            Of::RightGivenReasoning => (cell.right_present, cell.scored_present),
            Of::SpillOver | Of::RightChange => (0, 0),
        }
    }

    fn spill_over(&self, evaluation: &Evaluation) -> Result<Vec<String>> {
        let spill = evaluation.spill_over.as_ref().filter(|spill| spill.judged > 0);
        let spill = spill.ok_or_else(|| self.no_data("no reply to a plain prompt on both sides"))?;
        let share = 100.0 * spill.changed_language as f64 / spill.judged as f64;
        let miss = format!(
            "{}: {} of {} plain replies reason in another language than before, {share:.1} %",
            self.text, spill.changed_language, spill.judged
        );
        Ok(if share > self.percent { vec![miss] } else { Vec::new() })
    }

    fn right_change(&self, evaluation: &Evaluation) -> Result<Vec<String>> {
        let changes = [true, false].into_iter().filter_map(|asked| evaluation.change(Measure::Right, asked));
        let changes: Vec<_> = changes.collect();
        if changes.is_empty() {
            return Err(self.no_data("no judged answer on both sides"));
        }
        let is_miss = |low: f64| 100.0 * low < self.percent;
        let line = |change: &&crate::change::Change| {
            let asked = if change.asked { "a language asked" } else { "none asked" };
            format!("{}: {asked}: it may have changed by {:.1} points", self.text, 100.0 * change.low)
        };
        Ok(changes.iter().filter(|change| is_miss(change.low)).map(line).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read() {
        let of = |text: &str| text.parse::<Threshold>();
        assert_eq!(of("95").unwrap().of, Of::Hit);
        assert_eq!(of("right-change=-2").unwrap().percent.to_bits(), (-2.0_f64).to_bits());
        for (text, expected) in [
            ("hits=95", "no measure `hits`; there are hit, answer"),
            ("hit=x", "`x` is not a number"),
            ("hit=101", "101 is not from 0 to 100"),
            ("hit=-1", "not from 0"),
            ("hit=NaN", "not from 0"),
        ] {
            let error = of(text).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(text), "{error}");
        }
    }
}
