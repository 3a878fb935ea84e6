//! Line charts as inline SVG: axes, one line, a band where steps are binned, first, last and extreme value written.
//!
//! Everything is drawn at 400 units and shown about as wide, so that text has its size. No script.

use std::fmt::Write as _;

use super::markup::{escape, grouped};

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 196.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 66.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 26.0;
/// More steps than this are drawn as bins: mean as a line, least and most as a band.
pub(super) const BINS: usize = 240;
/// Strips for the mouse at most.
const STRIPS: usize = 60;
/// Values below this are drawn at it on a logarithmic axis.
const FLOOR: f64 = 1e-6;

/// What is drawn.
#[derive(Clone, Copy, Default)]
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) unit: &'a str,
    pub(super) caption: &'a str,
    /// Step and value, in order.
    pub(super) points: &'a [(f64, f64)],
    /// A value with a name, drawn dashed.
    pub(super) reference: Option<(f64, &'a str)>,
    /// Values at the beginning and end that are measured, not drawn through.
    pub(super) diamonds: &'a [(f64, f64, &'a str)],
    /// Another measured line, drawn dashed.
    pub(super) second: &'a [(f64, f64)],
    /// Class of the line.
    pub(super) class: &'a str,
    /// Whether the axis begins at 0.
    pub(super) from_zero: bool,
    /// Points of charts beside it, which share its scales.
    pub(super) beside: &'a [(f64, f64)],
}

/// A mean over neighbouring steps.
struct Bin {
    step: f64,
    mean: f64,
    least: f64,
    most: f64,
}

fn bins(points: &[(f64, f64)]) -> Vec<Bin> {
    let size = points.len().div_ceil(BINS).max(1);
    let bin = |points: &[(f64, f64)]| {
        let n = points.len() as f64;
        Bin {
            step: points.iter().map(|p| p.0).sum::<f64>() / n,
            mean: points.iter().map(|p| p.1).sum::<f64>() / n,
            least: points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min),
            most: points.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max),
        }
    };
    points.chunks(size).map(bin).collect()
}

/// A value in three digits, as people write it.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".into()
    } else if size >= 10_000.0 {
        grouped(value.round() as i64)
    } else if size < 1e-3 {
        format!("{value:.1e}")
    } else {
        let places = (2 - size.log10().floor() as i32).clamp(0, 5) as usize;
        let text = format!("{value:.places$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    }
}

/// The whole figure; numbers without a plot where there is one step, nothing where there is none.
pub(super) fn figure(chart: &Chart<'_>) -> String {
    let points: Vec<(f64, f64)> = chart.points.iter().copied().filter(|(_, y)| y.is_finite()).collect();
    let (title, unit) = (escape(chart.title), escape(chart.unit));
    match points.as_slice() {
        [] => String::new(),
        [(_, only)] => format!(
            "<figure><h3>{title} <span class=\"unit\">{unit}</span></h3><p class=\"note\">One step: {}.</p></figure>\n",
            number(*only)
        ),
        points => format!(
            "<figure><h3>{title} <span class=\"unit\">{unit}</span></h3>{}<figcaption>{}</figcaption></figure>\n",
            svg(chart, points),
            escape(chart.caption)
        ),
    }
}

fn svg(chart: &Chart<'_>, points: &[(f64, f64)]) -> String {
    let second: Vec<(f64, f64)> = chart.second.iter().copied().filter(|(_, y)| y.is_finite()).collect();
    let beside = || chart.beside.iter().map(|p| p.1).filter(|y| y.is_finite());
    let all = || {
        points
            .iter()
            .map(|p| p.1)
            .chain(chart.diamonds.iter().map(|d| d.1))
            .chain(second.iter().map(|p| p.1))
            .chain(beside())
    };
    let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    let log = !chart.from_zero && least > 0.0 && most / least.max(FLOOR) > 30.0;
    let scale = |value: f64| if log { value.max(FLOOR).log10() } else { value };
    let (mut low, mut high) =
        if log { (scale(least).floor(), scale(most).ceil()) } else { (least.min(0.0), most) };
    if high - low < 1e-12 {
        (low, high) = (low - 0.5, high + 0.5);
    }
    if !log {
        high += 0.08 * (high - low);
    }
    let steps = || points.iter().chain(chart.beside).map(|p| p.0);
    let (first, last) = (steps().fold(f64::INFINITY, f64::min), steps().fold(f64::NEG_INFINITY, f64::max));
    let x = |step: f64| LEFT + (step - first) / (last - first).max(1e-9) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| TOP + (high - scale(value)) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    let words = format!(
        "{}: {} at step {}, {} at step {}, least {}, most {}{}",
        chart.title,
        number(points[0].1),
        points[0].0,
        number(points[points.len() - 1].1),
        points[points.len() - 1].0,
        number(least),
        number(most),
        if log { "; logarithmic" } else { "" }
    );
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"><title>{}</title><desc>{}</desc>",
        escape(chart.title),
        escape(&words)
    );
    svg += &axes(&ticks(low, high, log), [first, last], [bottom, right], &x, &y);
    let end = points[points.len() - 1];
    if let Some((value, name)) = chart.reference.filter(|(value, _)| (low..=high).contains(&scale(*value))) {
        let at = y(value);
        let _ = write!(
            svg,
            "<path class=\"ref\" d=\"M{LEFT} {at:.1}H{right}\"/><text x=\"{}\" y=\"{:.1}\">{}</text>",
            right + 6.0,
            beside_label(at, y(end.1)) + 4.0,
            escape(name)
        );
    }
    let binned = bins(points);
    if binned.len() < points.len() {
        let up = binned.iter().map(|b| format!("{:.1},{:.1}", x(b.step), y(b.most)));
        let down = binned.iter().rev().map(|b| format!("{:.1},{:.1}", x(b.step), y(b.least)));
        let around: Vec<String> = up.chain(down).collect();
        let _ = write!(svg, "<polygon class=\"band\" points=\"{}\"/>", around.join(" "));
    }
    let line: Vec<String> = binned.iter().map(|b| format!("{:.1},{:.1}", x(b.step), y(b.mean))).collect();
    let _ = write!(svg, "<polyline class=\"{}\" points=\"{}\"/>", chart.class, line.join(" "));
    let _ = write!(
        svg,
        "<text class=\"v\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        x(end.0) + if chart.diamonds.is_empty() { 6.0 } else { 10.0 },
        y(end.1) + 4.0,
        number(end.1)
    );
    if second.len() > 1 {
        let line: Vec<String> = bins(&second)
            .iter()
            .map(|b| format!("{:.1},{:.1}", x(b.step.clamp(first, last)), y(b.mean)))
            .collect();
        let _ = write!(svg, "<polyline class=\"l0\" points=\"{}\"/>", line.join(" "));
    }
    for (step, value, name) in chart.diamonds {
        let (px, py) = (x(step.clamp(first, last)), y(*value));
        let _ = write!(
            svg,
            "<path class=\"ring\" d=\"M{px:.1} {:.1}l5.5 5.5l-5.5 5.5l-5.5 -5.5z\"><title>{}: {}</title></path>",
            py - 5.5,
            escape(name),
            number(*value)
        );
    }
    svg += &strips(chart, points, &x);
    svg + "</svg>"
}

/// Where the name of a dashed line at `line` is drawn, so that it does not cover the last value at `value`.
fn beside_label(line: f64, value: f64) -> f64 {
    /// Height of a line of text.
    const TEXT: f64 = 13.0;
    let above = line < value;
    if (line - value).abs() >= TEXT {
        line
    } else if above {
        value - TEXT
    } else {
        value + TEXT
    }
}

/// Ticks with their values, the axis below, and its two ends.
fn axes(
    ticks: &[f64],
    steps: [f64; 2],
    [bottom, right]: [f64; 2],
    x: &dyn Fn(f64) -> f64,
    y: &dyn Fn(f64) -> f64,
) -> String {
    let mut svg = String::new();
    for tick in ticks {
        let at = y(*tick);
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 7.0,
            at + 4.0,
            number(*tick)
        );
    }
    let _ = write!(svg, "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>");
    for (step, anchor) in [(steps[0], "start"), (steps[1], "end")] {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\">step {step}</text>",
            x(step),
            HEIGHT - 8.0
        );
    }
    svg
}

/// Invisible strips with a title each, for the mouse; the exact first and last step are among them.
fn strips(chart: &Chart<'_>, points: &[(f64, f64)], x: &dyn Fn(f64) -> f64) -> String {
    let every = points.len().div_ceil(STRIPS).max(1);
    let chosen = points.iter().step_by(every).chain(points.last().filter(|_| every > 1));
    let width = (WIDTH - LEFT - RIGHT) / points.len().div_ceil(every).max(1) as f64;
    let mut svg = String::new();
    for (step, value) in chosen {
        let _ = write!(
            svg,
            "<rect class=\"hit\" x=\"{:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{}\"><title>step {step}: {} {}</title></rect>",
            x(*step) - width / 2.0,
            HEIGHT - TOP - BOTTOM,
            number(*value),
            escape(chart.unit)
        );
    }
    svg
}

/// Decades, or three even values.
fn ticks(low: f64, high: f64, log: bool) -> Vec<f64> {
    if log {
        let every = ((high - low) / 4.0).ceil().max(1.0) as usize;
        return (low as i32..=high as i32).step_by(every).map(|decade| 10f64.powi(decade)).collect();
    }
    let unit = 10f64.powf(((high - low) / 3.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * unit).find(|step| (high - low) / step <= 4.0);
    let step = step.unwrap_or(unit);
    let from = (low / step).ceil() as i64;
    (from..).map(|n| n as f64 * step).take_while(|tick| *tick <= high).take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_line_and_the_last_value_do_not_lie_on_each_other() {
        let placed =
            [(50.0, 80.0), (79.0, 80.0), (80.0, 80.0)].map(|(line, value)| beside_label(line, value) as i32);
        assert_eq!(placed, [50, 67, 93]);
        let points = [(1.0, 5.0), (2.0, 10.0)];
        let chart = Chart {
            title: "t",
            points: &points,
            reference: Some((10.0, "median")),
            from_zero: true,
            ..Chart::default()
        };
        let html = figure(&chart);
        let at = |text: &str| -> f64 {
            let before = html.split(&format!(">{text}</text>")).next().unwrap();
            before.rsplit("y=\"").next().unwrap().split('"').next().unwrap().parse().unwrap()
        };
        assert!((at("median") - at("10.0")).abs() >= 12.0, "{html}");
    }
}
