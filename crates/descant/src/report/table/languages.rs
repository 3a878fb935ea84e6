//! Languages asked against languages found, in a matrix where there is room and else in words.

use std::fmt::Write as _;

use descant_evaluate::{Cell, Side};

use super::names::{asked, codes, cut, short};
use crate::wrap::hanging;

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
