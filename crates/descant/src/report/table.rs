//! Tables of an evaluation as text: the key figures, languages asked against found, and the long one.

use std::fmt::Write as _;

use std::collections::BTreeSet;

use descant_evaluate::{Cell, Evaluation, Side, name_of};

use super::key::{Figure, figures, figures_at, percent};
use crate::talk::Talk;
use crate::wrap::{NARROW, WIDE, hanging, wrap};

/// Columns of a figure, of an interval, and of a page that is read across at most.
const FIGURE: usize = 11;
const AT_EFFORT: usize = 8;
const INTERVAL: usize = 17;
const ACROSS: usize = 80;

/// The key figures, in a page of this width: before and after, or one side at each effort.
pub(crate) fn key_figures(evaluation: &Evaluation, replies: u64, width: usize) -> String {
    let figures = figures(evaluation, replies);
    let across = width.clamp(NARROW, WIDE).min(ACROSS);
    if figures.iter().any(|figure| figure.before.is_some()) {
        let mut table =
            Lines::new(across, &[("before", FIGURE), ("after", FIGURE), ("95 % interval", INTERVAL)]);
        for figure in &figures {
            let before = figure.before.map_or_else(|| "-".into(), |share| share.percent());
            table.row(figure.name, &[before, figure.after.percent(), figure.after.interval_text()]);
        }
        return table.text;
    }
    // One effort alone is all there is.
    let efforts: &[String] = if evaluation.efforts.len() > 1 { &evaluation.efforts } else { &[] };
    let at: Vec<Vec<Figure>> = efforts.iter().map(|effort| figures_at(evaluation, effort, replies)).collect();
    let mut columns = vec![("all", AT_EFFORT)];
    columns.extend(efforts.iter().map(|effort| (effort.as_str(), AT_EFFORT)));
    columns.push(("95 % interval", INTERVAL));
    let mut table = Lines::new(across, &columns);
    for figure in &figures {
        let mut cells = vec![figure.after.percent()];
        for figures in &at {
            let found = figures.iter().find(|other| other.name == figure.name);
            cells.push(found.map_or_else(|| "-".into(), |figure| figure.after.percent()));
        }
        cells.push(figure.after.interval_text());
        table.row(figure.name, &cells);
    }
    table.text
}

/// A table of names on the left and figures on the right.
struct Lines {
    name: usize,
    widths: Vec<usize>,
    text: String,
}

impl Lines {
    fn new(across: usize, columns: &[(&str, usize)]) -> Self {
        let widths: Vec<usize> = columns.iter().map(|(_, width)| *width).collect();
        let name = across.saturating_sub(widths.iter().sum());
        let mut table = Self { name, widths, text: String::new() };
        let titles: Vec<String> = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        table.row("percent of replies", &titles);
        table
    }

    fn row(&mut self, name: &str, cells: &[String]) {
        let width = self.name;
        let _ = write!(self.text, "{:<width$}", cut(name, width));
        for (cell, width) in cells.iter().zip(&self.widths) {
            let _ = write!(self.text, "{cell:>width$}");
        }
        self.text.push('\n');
    }
}

/// At most `width` columns of a name.
fn cut(name: &str, width: usize) -> String {
    name.chars().take(width.saturating_sub(1)).collect()
}

/// Columns of the names of what was asked, and of a count: as wide as there is room.
const ASKED: usize = 14;
const COUNTS: [usize; 3] = [7, 6, 5];

/// Languages asked against languages found, an effort at a time; efforts where all are as asked share a line. Where the
/// languages found are too many for the page, how many replies are as asked, and the rest in words.
pub(crate) fn found(side: &Side, efforts: &[String], width: usize) -> String {
    let mut text = String::new();
    let mut clean = Vec::new();
    for effort in efforts {
        let rows: Vec<&Cell> =
            side.cells.iter().filter(|cell| cell.effort == *effort && cell.asked != "any").collect();
        if rows.is_empty() {
            continue;
        }
        if rows.iter().all(|cell| cell.asked == "none" || cell.hit == cell.n) && one_language(&rows) {
            clean.push(effort.as_str());
            continue;
        }
        let codes = codes(rows.iter().copied());
        let _ = writeln!(text, "replies, {effort} effort");
        let largest = rows.iter().flat_map(|cell| cell.found.values()).max().copied().unwrap_or(0);
        let digits = largest.to_string().len() + 3;
        let column =
            COUNTS.into_iter().find(|column| ASKED + column * codes.len() <= width && digits <= *column);
        match column {
            Some(column) => matrix(&mut text, &rows, &codes, column),
            None => in_words(&mut text, &rows, width),
        }
    }
    if !clean.is_empty() {
        let _ = writeln!(text, "{}: all as asked", clean.join(", "));
    }
    text
}

fn matrix(text: &mut String, rows: &[&Cell], codes: &[&str], column: usize) {
    let _ = write!(text, "{:<ASKED$}", "asked");
    for code in codes {
        let _ = write!(text, "{:>column$}", format!("{} ", cut(short(code), column)));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    for cell in rows {
        let _ = write!(text, "{:<ASKED$}", cut(asked(cell), ASKED));
        for code in codes {
            let count = cell.found.get(*code).copied().unwrap_or(0);
            let shown = match count {
                _ if *code == cell.asked && cell.asked != "none" => format!("[{count}]"),
                0 => ". ".into(),
                _ => format!("{count} "),
            };
            let _ = write!(text, "{shown:>column$}");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
}

fn in_words(text: &mut String, rows: &[&Cell], width: usize) {
    for cell in rows {
        let mut others: Vec<(&String, &u64)> =
            cell.found.iter().filter(|(code, _)| **code != cell.asked || cell.asked == "none").collect();
        others.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let others: Vec<String> =
            others.into_iter().map(|(code, count)| format!("{} {count}", short(code))).collect();
        let others = others.join(", ");
        let line = match (cell.asked.as_str(), others.is_empty()) {
            ("none", _) => others,
            (_, true) => format!("{} of {} as asked", cell.hit, cell.n),
            (_, false) => format!("{} of {} as asked; {others}", cell.hit, cell.n),
        };
        text.push_str(&hanging(asked(cell), &line, width));
        text.push('\n');
    }
}

/// Whether prompts that ask for nothing are answered in one language.
fn one_language(rows: &[&Cell]) -> bool {
    rows.iter().filter(|cell| cell.asked == "none").all(|cell| cell.found.len() <= 1)
}

/// Verdicts that occur, languages first.
fn codes<'c>(cells: impl Iterator<Item = &'c Cell>) -> Vec<&'c str> {
    let all: BTreeSet<&str> = cells.flat_map(|cell| cell.found.keys().map(String::as_str)).collect();
    let last = ["mixed", "unsure", "other", "none"];
    let mut codes: Vec<&str> = all.iter().copied().filter(|code| !last.contains(code)).collect();
    codes.extend(last.into_iter().filter(|code| all.contains(code)));
    codes
}

fn short(code: &str) -> &str {
    if code == "none" { "-" } else { code }
}

fn asked(cell: &Cell) -> &str {
    match cell.asked.as_str() {
        "none" => "none",
        "any" => "each its own",
        code => name_of(code),
    }
}

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

/// What is wrong with replies, by name and count.
pub(crate) fn defects(side: &Side) -> String {
    let mut all = std::collections::BTreeMap::new();
    for (name, count) in
        side.cells.iter().filter(|c| matches!(c.asked.as_str(), "none" | "any")).flat_map(|c| &c.defects)
    {
        *all.entry(name.as_str()).or_insert(0) += count;
    }
    all.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> Evaluation {
        let text = include_str!("../../../../fixtures/evaluate/golden/evaluation.json");
        descant_evaluate::Evaluations::from_json(serde_json::from_str(text).unwrap())
            .unwrap()
            .evaluations
            .remove(0)
    }

    fn widest(text: &str) -> usize {
        text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
    }

    /// Thirty languages asked, each found as several.
    fn many() -> Evaluation {
        let mut evaluation = golden();
        let model = evaluation.before.cells.iter().find(|cell| cell.asked == "any").unwrap().clone();
        for n in 0..30 {
            let found =
                (0..30).map(|other| (format!("l{other}"), if other == n { 1000 } else { 3 })).collect();
            evaluation.before.cells.push(Cell { asked: format!("l{n}"), found, ..model.clone() });
        }
        evaluation.after = None;
        evaluation
    }

    #[test]
    fn no_table_is_wider_than_its_page() {
        for width in [60, 72, 80, 100] {
            for evaluation in [golden(), many()] {
                for text in [
                    key_figures(&evaluation, 1, width),
                    found(evaluation.latest(), &evaluation.efforts, width),
                    long(&evaluation, Long::Within(width)),
                ] {
                    assert!(widest(&text) <= width, "{width}\n{text}");
                }
            }
        }
        // The control: without a page it is one block, and wider.
        assert!(widest(&long(&golden(), Long::Whole)) > 100);
    }

    #[test]
    fn blocks_say_together_what_one_table_says() {
        let cells = |text: &str| {
            let mut cells: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            cells.sort();
            cells.dedup();
            cells
        };
        assert_eq!(cells(&long(&golden(), Long::Within(60))), cells(&long(&golden(), Long::Whole)));
    }
}
