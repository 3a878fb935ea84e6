//! A picture of many counts: a square each, one path a shade, so that a thousand squares are small.

use std::fmt::Write as _;

use super::markup::escape;

const WIDTH: f64 = 534.0;
/// Room of the names on the left and, slanted, above.
const LEFT: f64 = 64.0;
const TOP: f64 = 48.0;
const BELOW: f64 = 18.0;
/// Tallest square, of few rows and of many.
const TALLEST: [f64; 2] = [20.0, 14.0];
const FEW_ROWS: usize = 12;
/// Shades of the page's heat, lightest first.
pub(super) const SHADES: usize = 5;

/// What is drawn.
pub(super) struct Grid<'a> {
    pub(super) title: &'a str,
    /// The same in words.
    pub(super) words: &'a str,
    pub(super) rows: &'a [String],
    /// Names of the columns; only the first and the last are written where `few` is set.
    pub(super) columns: &'a [String],
    pub(super) few: bool,
    /// Below it.
    pub(super) axes: &'a str,
}

impl Grid<'_> {
    /// The picture. `shade` is 0 to 4, or nothing for a square that stays empty; `framed` ones have a frame.
    pub(super) fn svg(
        &self,
        shade: &dyn Fn(usize, usize) -> Option<usize>,
        framed: &dyn Fn(usize, usize) -> bool,
    ) -> String {
        let side = (WIDTH - LEFT) / self.columns.len().max(1) as f64;
        let tall = side.min(TALLEST[usize::from(self.rows.len() > FEW_ROWS)]);
        let top = if self.few { BELOW } else { TOP };
        let height = top + tall * self.rows.len() as f64 + BELOW;
        let mut svg = format!(
            "<svg class=\"load\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\"><title>{}</title><desc>{}</desc>",
            escape(self.title),
            escape(self.words)
        );
        let mut paths = vec![String::new(); SHADES];
        let mut frames = String::new();
        for row in 0..self.rows.len() {
            for column in 0..self.columns.len() {
                let (x, y) = (LEFT + side * column as f64, top + tall * row as f64);
                let square = |inset: f64| {
                    let (w, h) = (side - 2.0 * inset, tall - 2.0 * inset);
                    format!("M{:.1} {:.1}h{w:.1}v{h:.1}h-{w:.1}z", x + inset, y + inset)
                };
                if let Some(path) = shade(row, column).and_then(|shade| paths.get_mut(shade)) {
                    *path += &square(0.5);
                }
                if framed(row, column) {
                    frames += &square(1.5);
                }
            }
        }
        // Lightest first, as `style.css` names them.
        for (class, path) in ["b4", "b3", "b2", "b5", "b1"].into_iter().zip(paths) {
            if !path.is_empty() {
                let _ = write!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
            }
        }
        if !frames.is_empty() {
            let _ = write!(svg, "<path class=\"frame\" d=\"{frames}\"/>");
        }
        // Names that would be in each other's way are left out.
        let every = (15.0 / tall).ceil().max(1.0) as usize;
        for (at, name) in self.rows.iter().enumerate().step_by(every) {
            let y = top + tall * (at as f64 + 0.5) + 4.0;
            let _ = write!(
                svg,
                "<text x=\"{:.0}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                escape(name)
            );
        }
        for (at, name) in self.columns.iter().enumerate() {
            let x = LEFT + side * (at as f64 + 0.5);
            if !self.few {
                let _ = write!(
                    svg,
                    "<text transform=\"translate({:.1} {:.0}) rotate(-60)\">{}</text>",
                    x + 4.0,
                    top - 5.0,
                    escape(name)
                );
            } else if at == 0 || at + 1 == self.columns.len() {
                let _ = write!(
                    svg,
                    "<text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
                    top - 5.0,
                    escape(name)
                );
            }
        }
        let _ = write!(svg, "<text x=\"{LEFT}\" y=\"{:.0}\">{}</text>", height - 4.0, escape(self.axes));
        svg + "</svg>"
    }
}
