//! Tables of an evaluation as text: the key figures, languages asked against found, and the long one.

use std::fmt::Write as _;

use std::collections::BTreeSet;

use descant_evaluate::{Cell, Evaluation, Side, name_of};

use super::key::{Figure, percent};
use crate::wrap::{NARROW, WIDE};

/// The key figures, in a page of this width.
pub(crate) fn key_figures(figures: &[Figure], width: usize) -> String {
    let width = width.clamp(NARROW, WIDE);
    let two = figures.iter().any(|figure| figure.before.is_some());
    let name = width.min(80) - if two { 2 * 11 + 17 } else { 11 + 17 };
    let mut text = format!("{:<name$}", "percent of replies");
    if two {
        let _ = write!(text, "{:>11}{:>11}", "before", "after");
    } else {
        let _ = write!(text, "{:>11}", "all");
    }
    let _ = writeln!(text, "{:>17}", "95 % interval");
    for figure in figures {
        let _ = write!(text, "{:<name$}", cut(figure.name, name));
        if two {
            let _ = write!(text, "{:>11}", figure.before.map_or_else(|| "-".into(), |share| share.percent()));
        }
        let _ = writeln!(text, "{:>11}{:>17}", figure.after.percent(), figure.after.interval_text());
    }
    text
}

/// At most `width` columns of a name.
fn cut(name: &str, width: usize) -> String {
    name.chars().take(width.saturating_sub(1)).collect()
}

/// Languages asked against languages found, an effort at a time; efforts where all are as asked share a line.
pub(crate) fn found(side: &Side, efforts: &[String]) -> String {
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
        let _ = write!(text, "replies, {effort} effort\n{:<14}", "asked");
        for code in &codes {
            let _ = write!(text, "{:>7}", short(code));
        }
        text.push('\n');
        for cell in rows {
            let _ = write!(text, "{:<14}", cut(asked(cell), 14));
            for code in &codes {
                let count = cell.found.get(*code).copied().unwrap_or(0);
                let shown = match count {
                    _ if *code == cell.asked && cell.asked != "none" => format!("[{count}]"),
                    0 => ". ".into(),
                    _ => format!("{count} "),
                };
                let _ = write!(text, "{shown:>7}");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
    }
    if !clean.is_empty() {
        let _ = writeln!(text, "{}: all as asked", clean.join(", "));
    }
    text
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

/// Every cell, the sides of each under each other. Columns without data are left out.
pub(crate) fn long(evaluation: &Evaluation) -> String {
    let mut sides = vec![(if evaluation.after.is_some() { "before" } else { "" }, &evaluation.before)];
    sides.extend(evaluation.after.as_ref().map(|after| ("after", after)));
    let cells = || sides.iter().flat_map(|(_, side)| &side.cells);
    let codes = codes(cells());
    let columns: [Column; 9] = [
        ("as asked", |c| if c.asked == "none" { "-".into() } else { of(c.hit, c.n) }),
        ("answer as asked", |c| of(c.answer_hit, c.answer_asked)),
        ("right", |c| of(c.right, c.scored)),
        ("right if it reasons", |c| of(c.right_present, c.scored_present)),
        ("valid", |c| of(c.valid, c.n)),
        ("reasons", |c| of(c.analysis.present, c.n)),
        ("ended", |c| of(c.ended, c.n)),
        ("looped", |c| of(c.looped, c.n)),
        ("tokens", |c| c.mean_tokens().map_or_else(|| "-".into(), |mean| format!("{mean:.1}"))),
    ];
    let used: Vec<&Column> =
        columns.iter().filter(|(_, show)| cells().any(|cell| show(cell) != "-")).collect();
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
            row.extend(used.iter().map(|(_, show)| show(found)));
            rows.push(row);
        }
    }
    aligned(&rows) + LEGEND
}

/// Columns that hold words.
const WORDS: usize = 3;

/// Words to the left, numbers to the right; what the line above says already is left out.
fn aligned(rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
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

/// What the columns mean.
pub(crate) const LEGEND: &str = "\
Percent of n. Languages: of the reasoning; mixed: no language has three fifths of it; unsure: not told apart;
other: none that can be asked for; -: nothing to judge. as asked: reasoning in the language asked. answer as asked:
the answer's language. right: of replies with a known answer. valid: Harmony without a defect. reasons: with
reasoning. looped: caught in a loop. tokens: mean length of reasoning, of replies that ended and reasoned.
";

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
