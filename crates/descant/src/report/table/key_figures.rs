//! The key figures as a table: before and after, or one side at each effort.

use std::fmt::Write as _;

use descant_evaluate::Evaluation;

use super::names::cut;
use crate::report::key::{Figure, figures, figures_at};
use crate::wrap::{NARROW, WIDE};

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
