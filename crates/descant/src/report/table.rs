//! Reasoning language asked against found, right answers, valid Harmony, length: one table for one or more
//! evaluations of the same prompts.
//!
//! Cells are strings here already, so that terminal and HTML show the same numbers.

use descant_train::measure::{Asked, Cell, Evaluation, Language};

/// Titles of the columns.
const COLUMNS: [&str; 15] = [
    "effort", "asked", "", "n", "en", "fr", "es", "de", "it", "unsure", "as asked", "right", "valid",
    "steps", "tokens",
];
/// Columns that hold words.
const WORDS: usize = 3;

/// A table of text.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<[String; COLUMNS.len()]>,
}

impl Table {
    /// One line for each cell and evaluation; the evaluations of a cell stand under each other.
    pub(crate) fn new(evaluations: &[(&str, &Evaluation)]) -> Self {
        let mut rows = Vec::new();
        let Some((_, first)) = evaluations.first() else { return Self { rows } };
        for cell in &first.cells {
            for (name, evaluation) in evaluations {
                if let Some(found) = evaluation.cell(&cell.effort, cell.asked) {
                    rows.push(row(name, found));
                }
            }
        }
        Self { rows }
    }

    /// Titles of the columns.
    pub(crate) fn titles() -> &'static [&'static str] {
        &COLUMNS
    }

    /// The lines below the titles.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[String]> {
        self.rows.iter().map(<[String; COLUMNS.len()]>::as_slice)
    }

    /// Aligned text, words to the left and numbers to the right, with what the columns mean below.
    pub(crate) fn to_text(&self) -> String {
        let titles = COLUMNS.map(str::to_owned);
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&titles]).map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: [usize; COLUMNS.len()] = std::array::from_fn(width);
        let mut text = String::new();
        let mut last = ("", "");
        for row in [&titles].into_iter().chain(&self.rows) {
            let key = (row[0].as_str(), row[1].as_str());
            if last.0 != key.0 && !last.0.is_empty() {
                text.push('\n');
            }
            for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                // What the line above says already is left out.
                let shown =
                    if (column == 0 && key.0 == last.0) || (column == 1 && key == last) { "" } else { cell };
                let padded =
                    if column < WORDS { format!("{shown:<width$}") } else { format!("{shown:>width$}") };
                text += &padded;
                text += if column + 1 < COLUMNS.len() { "  " } else { "" };
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
            last = key;
        }
        text + LEGEND
    }
}

/// What the columns mean.
pub(crate) const LEGEND: &str = "\
en to it: language of the reasoning, percent of n. as asked: it is the language asked, English where none was.
right: the final is English and ends on the right number. valid: one analysis and one final, closed.
steps: every written step is true. tokens: mean length of the reasoning.";

fn row(name: &str, cell: &Cell) -> [String; COLUMNS.len()] {
    let asked = match cell.asked {
        Asked::Nothing => "none",
        Asked::Any => "each its own",
        Asked::Language(language) => language.name(),
    };
    let percent = |count| percent(cell.percent(count));
    let found = Language::ALL.map(|language| percent(cell.found.of(language)));
    let [en, fr, es, de, it] = found;
    [
        cell.effort.clone(),
        asked.to_owned(),
        name.to_owned(),
        cell.n.to_string(),
        en,
        fr,
        es,
        de,
        it,
        percent(cell.found.unsure),
        percent(cell.hit),
        percent(cell.right),
        percent(cell.valid),
        percent(cell.true_steps),
        format!("{:.1}", cell.mean_analysis_tokens()),
    ]
}

/// Whole percents without a decimal, all others with one, and never rounded up to 100.
fn percent(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{:.1}", value.min(99.9)) }
}

#[cfg(test)]
pub(super) mod tests {
    use descant_train::measure::{Expected, judge};

    use super::*;

    /// An evaluation of three prompts: French asked of two, nothing asked of one.
    pub(in super::super) fn evaluation(french: [&str; 2]) -> Evaluation {
        let mut evaluation = Evaluation::default();
        let reply = |text: &str| {
            format!(
                "<|channel|>analysis<|message|>{text}<|end|><|start|>assistant<|channel|>final<|message|>The answer is 7.<|return|>"
            )
        };
        let expected = |language| Expected { language, answer: "7" };
        let count = |text: &str| text.split(' ').count();
        let add = |evaluation: &mut Evaluation, asked, language, text: &str| {
            evaluation.add("low", asked, judge(&reply(text), expected(language), &count));
        };
        add(&mut evaluation, Asked::Nothing, Language::English, "we add");
        for text in french {
            add(&mut evaluation, Asked::Any, Language::French, text);
            add(&mut evaluation, Asked::Language(Language::French), Language::French, text);
        }
        evaluation.add("medium", Asked::Nothing, judge("broken", expected(Language::English), &count));
        evaluation
    }

    #[test]
    fn two_evaluations_stand_under_each_other() {
        let (before, after) = (evaluation(["we add", "the sum"]), evaluation(["il faut", "xyz"]));
        insta::assert_snapshot!(Table::new(&[("before", &before), ("after", &after)]).to_text(), @r##"
        effort  asked                 n   en  fr  es  de  it  unsure  as asked  right  valid  steps  tokens

        low     none          before  1  100   0   0   0   0       0       100    100    100    100     2.0
                              after   1  100   0   0   0   0       0       100    100    100    100     2.0
                each its own  before  2  100   0   0   0   0       0         0    100    100    100     2.0
                              after   2    0  50   0   0   0      50        50    100    100    100     1.5
                French        before  2  100   0   0   0   0       0         0    100    100    100     2.0
                              after   2    0  50   0   0   0      50        50    100    100    100     1.5

        medium  none          before  1    0   0   0   0   0       0         0      0      0      0     0.0
                              after   1    0   0   0   0   0       0         0      0      0      0     0.0
        en to it: language of the reasoning, percent of n. as asked: it is the language asked, English where none was.
        right: the final is English and ends on the right number. valid: one analysis and one final, closed.
        steps: every written step is true. tokens: mean length of the reasoning.
        "##);
        assert_eq!(Table::new(&[]).rows().count(), 0);
    }

    #[test]
    fn percents_are_not_flattered() {
        for (value, text) in [(100.0, "100"), (99.96, "99.9"), (33.333, "33.3"), (0.0, "0"), (0.04, "0.0")] {
            assert_eq!(percent(value), text);
        }
    }
}
