//! The long table: every cell of an evaluation, in blocks of columns as wide as the page.

use std::fmt::Write as _;

use descant_evaluate::{Cell, Evaluation};

use super::names::{asked, codes, short};
use crate::report::key::percent;
use crate::talk::Talk;
use crate::wrap::wrap;

/// A column of the long table: its title, and what it shows of a cell.
type Column = (&'static str, fn(&Cell) -> String);

fn of(count: u64, all: u64) -> String {
    if all == 0 { "-".into() } else { percent(count as f64 / all as f64) }
}

/// Whether every cell is shown, and how wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Long {
    /// It is not.
    No,
    /// In blocks of columns of at most this width.
    Within(usize),
    /// As one table, however wide.
    Whole,
}

impl Long {
    /// Within a terminal's page; whole where there is none.
    pub(crate) fn wanted(wanted: bool, talk: Talk) -> Self {
        match talk.data_columns() {
            _ if !wanted => Self::No,
            Some(_) => Self::Within(talk.data_width()),
            None => Self::Whole,
        }
    }
}

/// Every cell, the sides of each under each other; nothing where that is not wanted. Columns without data are left out.
pub(crate) fn long(evaluation: &Evaluation, how: Long) -> String {
    let width = match how {
        Long::No => return String::new(),
        Long::Within(width) => Some(width),
        Long::Whole => None,
    };
    let mut sides = vec![(if evaluation.after.is_some() { "before" } else { "" }, &evaluation.before)];
    sides.extend(evaluation.after.as_ref().map(|after| ("after", after)));
    let cells = || sides.iter().flat_map(|(_, side)| &side.cells);
    let codes = codes(cells());
    let used: Vec<&Column> = COLUMNS
        .iter()
        .filter(|(_, show)| cells().any(|cell| !matches!(show(cell).as_str(), "-" | "")))
        .collect();
    let mut titles = vec!["effort".to_owned(), "asked".into(), String::new(), "n".into()];
    titles.extend(codes.iter().map(|code| short(code).to_owned()));
    titles.extend(used.iter().map(|(title, _)| (*title).to_owned()));
    let mut rows = vec![titles];
    for cell in &evaluation.before.cells {
        for (name, side) in &sides {
            let Some(found) = side.cell(&cell.effort, &cell.asked) else { continue };
            let mut row =
                vec![found.effort.clone(), asked(found).to_owned(), (*name).to_owned(), found.n.to_string()];
            row.extend(codes.iter().map(|code| of(found.found.get(*code).copied().unwrap_or(0), found.n)));
            row.extend(
                used.iter().map(|(_, show)| {
                    Some(show(found)).filter(|s| !s.is_empty()).unwrap_or_else(|| "0".into())
                }),
            );
            rows.push(row);
        }
    }
    let blocks: Vec<String> = blocks(&rows, width).iter().map(|rows| aligned(rows)).collect();
    blocks.join("\n") + &wrap(LEGEND, width.unwrap_or(LEGEND_WIDTH)).join("\n") + "\n"
}

/// What the long table shows of a cell; nothing that is there is `-`, and counts of what should not be are empty where
/// there are none.
const COLUMNS: [Column; 13] = [
    ("as asked", |c| if c.asked == "none" { "-".into() } else { of(c.hit, c.n) }),
    ("answer as asked", |c| of(c.answer_hit, c.answer_asked)),
    ("right", |c| of(c.right, c.scored)),
    ("right if it reasons", |c| of(c.right_present, c.scored_present)),
    ("valid", |c| of(c.valid, c.n)),
    ("reasons", |c| of(c.analysis.present, c.n)),
    ("empty", |c| some(c.analysis.empty, c.n)),
    ("missing", |c| some(c.analysis.missing, c.n)),
    ("cut in it", |c| some(c.analysis.truncated, c.n)),
    ("ended", |c| of(c.ended, c.n)),
    ("looped", |c| some(c.looped, c.n)),
    ("cut", |c| some(c.cut, c.n)),
    ("tokens", |c| c.mean_tokens().map_or_else(|| "-".into(), |mean| format!("{mean:.1}"))),
];

/// A share that should be 0, and is empty where it is.
fn some(count: u64, all: u64) -> String {
    if count == 0 { String::new() } else { of(count, all) }
}

/// Columns that hold words, and the number of replies behind them: they are in every block.
const WORDS: usize = 3;
const KEYS: usize = WORDS + 1;
/// Between two columns.
const GAP: usize = 2;

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let widest = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    (0..rows[0].len()).map(widest).collect()
}

/// The table in as many as it takes to fit a width, the first columns in each.
fn blocks(rows: &[Vec<String>], width: Option<usize>) -> Vec<Vec<Vec<String>>> {
    let Some(width) = width else { return vec![rows.to_vec()] };
    let widths = widths(rows);
    let keys: usize = widths[..KEYS].iter().map(|width| if *width == 0 { 0 } else { width + GAP }).sum();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut used = width;
    for (column, width_of) in widths.iter().enumerate().skip(KEYS) {
        if groups.is_empty() || used + GAP + width_of > width {
            groups.push(Vec::new());
            used = keys.saturating_sub(GAP);
        }
        used += GAP + width_of;
        groups.last_mut().expect("one was pushed").push(column);
    }
    let block = |columns: &Vec<usize>| {
        let of_row = |row: &Vec<String>| {
            let chosen = (0..KEYS).chain(columns.iter().copied());
            chosen.map(|column| row[column].clone()).collect()
        };
        rows.iter().map(of_row).collect()
    };
    groups.iter().map(block).collect()
}

/// Words to the left, numbers to the right; what the line above says already is left out.
fn aligned(rows: &[Vec<String>]) -> String {
    let widths = widths(rows);
    let mut text = String::new();
    let mut last = ("", "");
    for row in rows {
        let key = (row[0].as_str(), row[1].as_str());
        if last.0 != key.0 && !last.0.is_empty() {
            text.push('\n');
        }
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let said = (column == 0 && key.0 == last.0) || (column == 1 && key == last);
            let shown = if said { "" } else { cell.as_str() };
            if column >= WORDS {
                let _ = write!(text, "{shown:>width$}  ");
            } else if *width > 0 {
                let _ = write!(text, "{shown:<width$}  ");
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        last = key;
    }
    text
}

/// What the columns mean, and how wide it is where no page says.
const LEGEND: &str = "\
Percent of n. Languages: of the reasoning; mixed: no language has three fifths of it; unsure: not identified; other: \
none that can be asked for; -: nothing to judge. as asked: reasoning in the language asked. answer as asked: the \
answer's language. right: of replies with a known answer. valid: Harmony without a defect. reasons, empty, missing, cut \
in it: what became of the reasoning. ended, looped, cut: how the reply ended. tokens: mean length of reasoning, of \
replies that ended and reasoned.";
const LEGEND_WIDTH: usize = 118;
