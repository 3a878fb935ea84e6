//! The one line that is redrawn while something continues: a text that fits its width, whatever there is to say.
//!
//! What does not fit is left out from the end of this order: units done, time left, a bar of 24 columns, then of 12,
//! then none, and the numbers in the order they come. Nothing is ever cut or wrapped.

use super::pace::clock;
use crate::wrap::LABEL;

/// Columns of the bar, widest first.
const BARS: [usize; 3] = [24, 12, 0];
/// Between the parts of a line.
const GAP: usize = 2;

/// How far something is.
pub(super) struct Live<'a> {
    /// What is being done, in one word.
    pub(super) name: &'a str,
    pub(super) done: u64,
    pub(super) total: Option<u64>,
    pub(super) seconds_left: Option<f64>,
    /// Numbers beside it, most wanted first.
    pub(super) numbers: &'a [String],
    /// Whether the terminal shows more than ASCII.
    pub(super) utf8: bool,
}

/// `53/60`, or `53` where nobody knows of how many.
pub(super) fn count(done: u64, total: Option<u64>) -> String {
    total.map_or_else(|| done.to_string(), |total| format!("{done}/{total}"))
}

impl Live<'_> {
    /// The line, of at most `width` columns.
    pub(super) fn line(&self, width: usize) -> String {
        let mut fixed = vec![count(self.done, self.total)];
        fixed.extend(self.seconds_left.map(|left| format!("{} left", clock(left))));
        let head = format!("{:<LABEL$}", self.name);
        let text: usize = fixed.iter().map(|part| GAP + part.len()).sum();
        // A bar is worth less than the first number, and more than the others.
        let first = self.numbers.first().map_or(0, |number| GAP + number.len());
        let fits = |bar: &usize| head.len() + bar + text + first <= width;
        let bar = if self.total.is_some() { BARS.into_iter().find(fits).unwrap_or(0) } else { 0 };
        let mut line = head + &self.bar(bar);
        for (at, part) in fixed.iter().chain(self.numbers).enumerate() {
            let gap = if at == 0 && bar == 0 { 0 } else { GAP };
            if line.chars().count() + gap + part.len() > width {
                break;
            }
            line.extend(std::iter::repeat_n(' ', gap));
            line += part;
        }
        line.chars().take(width).collect()
    }

    fn bar(&self, columns: usize) -> String {
        let [full, tip, rest] = if self.utf8 { ["━", "╸", "─"] } else { ["#", ">", "."] };
        let total = self.total.unwrap_or(0).max(1);
        let filled = (columns as f64 * (self.done.min(total) as f64 / total as f64)) as usize;
        if filled >= columns {
            return full.repeat(columns);
        }
        format!("{}{tip}{}", full.repeat(filled), rest.repeat(columns - filled - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(numbers: &[String]) -> Live<'_> {
        Live { name: "train", done: 53, total: Some(60), seconds_left: Some(2.0), numbers, utf8: true }
    }

    fn numbers() -> Vec<String> {
        ["loss 0.020", "first token 0.33", "7,400 tokens/s", "rate 1.0e-3"].map(str::to_owned).to_vec()
    }

    #[test]
    fn what_does_not_fit_is_left_out_in_order() {
        let numbers = numbers();
        for (width, expected) in [
            (
                100,
                "train       ━━━━━━━━━━━━━━━━━━━━━╸──  53/60  0:02 left  loss 0.020  first token 0.33  7,400 tokens/s",
            ),
            (80, "train       ━━━━━━━━━━━━━━━━━━━━━╸──  53/60  0:02 left  loss 0.020"),
            (60, "train       ━━━━━━━━━━╸─  53/60  0:02 left  loss 0.020"),
            (42, "train       53/60  0:02 left  loss 0.020"),
            (30, "train       53/60  0:02 left"),
            (20, "train       53/60"),
        ] {
            assert_eq!(train(&numbers).line(width), expected, "{width}");
        }
    }

    #[test]
    fn no_line_is_ever_wider_than_its_terminal() {
        let mut numbers = numbers();
        numbers[0] = "loss 123456.789".into();
        for total in [None, Some(1), Some(60), Some(u64::MAX)] {
            for done in [0, 1, 59, u64::MAX] {
                for seconds_left in [None, Some(1e9)] {
                    for width in 0..130 {
                        let live =
                            Live { name: "before", done, total, seconds_left, numbers: &numbers, utf8: true };
                        assert!(live.line(width).chars().count() <= width, "{width}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_terminal_without_utf8_gets_ascii() {
        let live = Live { utf8: false, ..train(&[]) };
        assert_eq!(live.line(60), "train       #####################>..  53/60  0:02 left");
        assert!(Live { done: 60, ..live }.line(60).contains(&"#".repeat(24)));
    }
}
