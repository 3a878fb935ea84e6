//! Which language was asked and which the reasoning is in, as a picture that is a real table.
//!
//! Up to eight languages: a matrix an effort, before and after. Beyond: a row a language, worst first, efforts
//! together, and every count in `evaluation.json`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use descant_evaluate::{Cell, Evaluation, Side, name_of};

use super::grid::Grid;
use super::head::share_of;
use super::markup::{Section, escape};
use crate::report::run_files::RunFiles;

/// More languages than this are rows of one table.
const MATRIX: usize = 8;
/// Languages of the whole picture at most.
const LARGEST: usize = 30;
/// Verdicts that are not a language come last.
const LAST: [&str; 4] = ["mixed", "unsure", "other", "none"];

/// The section; nothing where no reply was judged.
pub(super) fn section(run: &RunFiles) -> Option<Section> {
    let mut matter = String::new();
    for evaluation in &run.evaluations.as_ref()?.evaluations {
        let asked = asked(evaluation);
        if evaluation.before.cells.is_empty() {
            continue;
        }
        if let Some(suite) = &evaluation.suite {
            let _ = writeln!(matter, "<h3>{}</h3>", escape(suite));
        }
        matter += &if asked.len() > MATRIX { rows(evaluation, &asked) } else { matrices(evaluation) };
    }
    if matter.is_empty() {
        return None;
    }
    matter += "<p class=\"legend\"><span><span class=\"sw goal\"></span>as asked</span><span><span class=\"sw k1\"></span>\
               <span class=\"sw k2\"></span><span class=\"sw k3\"></span><span class=\"sw k4\"></span><span class=\"sw \
               k5\"></span>share of the row: up to a quarter, half, three quarters, nearly all, all</span></p>\n\
               <p class=\"note\">Numbers are replies. Down: asked. Across: found. mixed: no language has three fifths of \
               the text; unsure: not identified; other: none that can be asked for; -: no reasoning to judge. Where none \
               was asked, no language is right: the base is the yardstick.</p>\n";
    let rail = "Which language was asked, and which the reasoning is in.".to_owned();
    Some(Section { id: "languages", title: "Languages", rail, matter })
}

/// Codes that were asked for.
fn asked(evaluation: &Evaluation) -> BTreeSet<&str> {
    let cells = evaluation.before.cells.iter().map(|cell| cell.asked.as_str());
    cells.filter(|asked| !matches!(*asked, "none" | "any")).collect()
}

/// Verdicts that occur on either side, languages first.
fn found(evaluation: &Evaluation) -> Vec<&str> {
    let sides = [Some(&evaluation.before), evaluation.after.as_ref()];
    let cells = sides.into_iter().flatten().flat_map(|side| &side.cells);
    let mut all: BTreeSet<&str> = cells.flat_map(|cell| cell.found.keys().map(String::as_str)).collect();
    all.extend(asked(evaluation));
    let mut codes: Vec<&str> = all.iter().copied().filter(|code| !LAST.contains(code)).collect();
    codes.extend(LAST.into_iter().filter(|code| all.contains(code)));
    codes
}

fn matrices(evaluation: &Evaluation) -> String {
    let codes = found(evaluation);
    let mut html = "<div class=\"efforts\">\n".to_owned();
    for effort in &evaluation.efforts {
        let mean = |side: &Side| side.cell(effort, "any").and_then(Cell::mean_tokens);
        let before = mean(&evaluation.before);
        let after = evaluation.after.as_ref().and_then(mean);
        let lengths = match (before, after) {
            (Some(before), Some(after)) => format!("{before:.1} → {after:.1} tokens of reasoning"),
            (Some(only), None) | (None, Some(only)) => format!("{only:.1} tokens of reasoning"),
            (None, None) => String::new(),
        };
        let _ =
            write!(html, "<div class=\"effort\"><h3>{} effort<small>{lengths}</small></h3>", escape(effort));
        html += &heat(
            &evaluation.before,
            effort,
            &codes,
            if evaluation.after.is_some() { "base" } else { "measured" },
        );
        if let Some(after) = &evaluation.after {
            html += &heat(after, effort, &codes, "with the adapter");
        }
        html += "</div>\n";
    }
    html + "</div>\n"
}

fn heat(side: &Side, effort: &str, codes: &[&str], caption: &str) -> String {
    let mut html = format!(
        "<table class=\"heat\"><caption>{caption}<span class=\"vh\">: asked, down; found, across</span></caption><thead>\
         <tr><th scope=\"col\"><span class=\"long\">asked</span></th>"
    );
    for code in codes {
        let shown = if *code == "none" { "-" } else { code };
        let _ = write!(html, "<th scope=\"col\"><abbr title=\"{}\">{shown}</abbr></th>", name_of(code));
    }
    html += "</tr></thead><tbody>";
    for cell in side.cells.iter().filter(|cell| cell.effort == effort && cell.asked != "any") {
        let (long, short) =
            if cell.asked == "none" { ("none", "–") } else { (name_of(&cell.asked), cell.asked.as_str()) };
        let _ = write!(
            html,
            "<tr><th scope=\"row\"><span class=\"long\">{long}</span><span class=\"short\" aria-hidden=\"true\">{short}</span></th>"
        );
        for code in codes {
            let count = cell.found.get(*code).copied().unwrap_or(0);
            let shade = shade(count, cell.n).map(|shade| format!("k{shade}"));
            let goal = (*code == cell.asked && cell.asked != "none").then(|| "goal".to_owned());
            let class = [shade, goal].into_iter().flatten().collect::<Vec<_>>().join(" ");
            let class = if class.is_empty() { class } else { format!(" class=\"{class}\"") };
            let shown = if count == 0 { "·".to_owned() } else { count.to_string() };
            let _ = write!(html, "<td{class}>{shown}</td>");
        }
        html += "</tr>";
    }
    html + "</tbody></table>"
}

/// One of five shades, by the share of the row.
fn shade(count: u64, n: u64) -> Option<u64> {
    match count {
        0 => None,
        all if all == n => Some(5),
        some => Some((4 * some).div_ceil(n).clamp(1, 4)),
    }
}

/// A row a language, worst first.
fn rows(evaluation: &Evaluation, asked: &BTreeSet<&str>) -> String {
    let side = evaluation.latest();
    let mut cells: Vec<Cell> = asked.iter().filter_map(|code| side.pooled(code)).collect();
    cells.sort_by(|a, b| (a.hit * b.n).cmp(&(b.hit * a.n)).then_with(|| a.asked.cmp(&b.asked)));
    let row = |cell: &Cell| {
        let english = if cell.asked == "en" { 0 } else { cell.found.get("en").copied().unwrap_or(0) };
        let width = 1000.0 * cell.hit as f64 / cell.n.max(1) as f64;
        let was = evaluation.after.as_ref().and_then(|_| evaluation.before.pooled(&cell.asked));
        vec![
            escape(name_of(&cell.asked)),
            cell.n.to_string(),
            was.map_or_else(|| "-".into(), |was| share_of(was.hit, was.n)),
            share_of(cell.hit, cell.n),
            share_of(english, cell.n),
            share_of(cell.n - cell.hit - english, cell.n),
            format!(
                "<svg class=\"bar\" viewBox=\"0 0 1000 20\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect \
                 class=\"b0\" width=\"1000\" height=\"20\"/><rect class=\"b1\" width=\"{width:.0}\" height=\"20\"/></svg>"
            ),
        ]
    };
    let titles = [
        ("asked", ""),
        ("n", "r"),
        ("before, as asked", "r"),
        ("as asked", "r"),
        ("English", "r"),
        ("another", "r"),
        ("as asked, of all", "barcell"),
    ];
    let rows: Vec<Vec<String>> = cells.iter().map(row).collect();
    let table = super::markup::table(
        "Reasoning by language asked, worst first <span class=\"unit\">percent of n, all efforts</span>",
        &titles,
        &rows,
        false,
    );
    table + &whole(evaluation, asked)
}

/// Everything asked against everything found, as a picture; beyond its size the counts are in evaluation.json alone.
fn whole(evaluation: &Evaluation, asked: &BTreeSet<&str>) -> String {
    let codes = found(evaluation);
    let rows: Vec<&str> = asked.iter().copied().collect();
    if rows.len() > LARGEST || codes.len() > LARGEST + LAST.len() {
        return "<p class=\"note\">Every requested language with every language found: evaluation.json.</p>\n"
            .into();
    }
    let names = |codes: &[&str]| -> Vec<String> {
        codes.iter().map(|code| if *code == "none" { "-".into() } else { (*code).to_owned() }).collect()
    };
    let (down, across) = (names(&rows), names(&codes));
    let sides = [
        (if evaluation.after.is_some() { "base" } else { "measured" }, Some(&evaluation.before)),
        ("with the adapter", evaluation.after.as_ref()),
    ];
    let mut html = "<details><summary>Every language asked against every one found</summary>\n".to_owned();
    for (title, side) in sides.into_iter().filter_map(|(title, side)| Some((title, side?))) {
        let cells: Vec<Option<Cell>> = rows.iter().map(|code| side.pooled(code)).collect();
        let all: u64 = cells.iter().flatten().map(|cell| cell.n).sum();
        let hits: u64 = cells.iter().flatten().map(|cell| cell.hit).sum();
        let grid = Grid {
            title: &format!("Languages, {title}"),
            words: &format!("{hits} of {all} replies reason in the language asked"),
            rows: &down,
            columns: &across,
            few: false,
            axes: "requested: rows; found: columns; framed: as requested",
        };
        let of = |row: usize, column: usize| {
            let cell = cells[row].as_ref()?;
            shade(cell.found.get(codes[column]).copied().unwrap_or(0), cell.n)
        };
        let picture = grid
            .svg(&|row, column| of(row, column).map(|shade| shade as usize - 1), &|row, column| {
                rows[row] == codes[column]
            });
        let _ = writeln!(html, "<figure><p class=\"who always\">{title}</p>{picture}</figure>");
    }
    html + "</details>\n"
}
