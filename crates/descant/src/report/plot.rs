//! The loss curve as inline SVG: two polylines, decades as grid, no script.

use std::fmt::Write as _;

use descant_train::StepMetrics;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 30.0;
const TOP: f64 = 10.0;
/// Losses below this are drawn at it: the scale is logarithmic.
const FLOOR: f64 = 1e-6;

/// Loss over steps on a logarithmic scale, with the loss of the first analysis token where there is one. Empty when
/// there are no two steps.
pub(super) fn losses(steps: &[StepMetrics]) -> String {
    let line = |value: fn(&StepMetrics) -> Option<f32>| -> Vec<(f64, f64)> {
        let points = steps.iter().filter_map(|s| Some((s.step as f64, f64::from(value(s)?))));
        points.filter(|(_, y)| y.is_finite()).map(|(x, y)| (x, y.max(FLOOR).log10())).collect()
    };
    let (all, first) = (line(|s| Some(s.loss)), line(|s| s.first_analysis_loss));
    if all.len() < 2 {
        return String::new();
    }
    let ys = || all.iter().chain(&first).map(|&(_, y)| y);
    let (low, high) =
        (ys().fold(f64::INFINITY, f64::min).floor(), ys().fold(f64::NEG_INFINITY, f64::max).ceil());
    let high = high.max(low + 1.0);
    let (start, end) = (all[0].0, all[all.len() - 1].0);
    let x = |step: f64| LEFT + (step - start) / (end - start) * (WIDTH - LEFT - 10.0);
    let y = |log: f64| TOP + (high - log) / (high - low) * (HEIGHT - TOP - BOTTOM);

    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Loss over steps, logarithmic\">\n"
    );
    for decade in low as i32..=high as i32 {
        let at = y(f64::from(decade));
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - 10.0,
            LEFT - 8.0,
            at + 4.0,
            power(decade),
        );
    }
    for (step, anchor) in [(start, "start"), (end, "end")] {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">step {step}</text>",
            x(step),
            HEIGHT - 8.0
        );
    }
    for (class, points) in [("first", &first), ("loss", &all)] {
        let points: Vec<String> = points.iter().map(|&(s, l)| format!("{:.1},{:.1}", x(s), y(l))).collect();
        if !points.is_empty() {
            let _ = writeln!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", points.join(" "));
        }
    }
    svg + "</svg>\n"
}

/// A power of ten as people write it.
fn power(decade: i32) -> String {
    match decade {
        -3..=3 => format!("{}", 10f64.powi(decade)),
        _ => format!("1e{decade}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::step_of;

    #[test]
    fn the_curve_falls_from_left_to_right() {
        let steps: Vec<_> =
            [0.5, 0.05, 0.005].into_iter().zip(1..).map(|(loss, n)| step_of(n, loss)).collect();
        insta::assert_snapshot!(losses(&steps), @r##"
        <svg viewBox="0 0 720 260" role="img" aria-label="Loss over steps, logarithmic">
        <line class="grid" x1="56" x2="710.0" y1="230.0" y2="230.0"/><text x="48.0" y="234.0" text-anchor="end">0.001</text>
        <line class="grid" x1="56" x2="710.0" y1="186.0" y2="186.0"/><text x="48.0" y="190.0" text-anchor="end">0.01</text>
        <line class="grid" x1="56" x2="710.0" y1="142.0" y2="142.0"/><text x="48.0" y="146.0" text-anchor="end">0.1</text>
        <line class="grid" x1="56" x2="710.0" y1="98.0" y2="98.0"/><text x="48.0" y="102.0" text-anchor="end">1</text>
        <line class="grid" x1="56" x2="710.0" y1="54.0" y2="54.0"/><text x="48.0" y="58.0" text-anchor="end">10</text>
        <line class="grid" x1="56" x2="710.0" y1="10.0" y2="10.0"/><text x="48.0" y="14.0" text-anchor="end">100</text>
        <text x="56.0" y="252.0" text-anchor="start">step 1</text>
        <text x="710.0" y="252.0" text-anchor="end">step 3</text>
        <polyline class="first" points="56.0,49.6"/>
        <polyline class="loss" points="56.0,111.2 383.0,155.2 710.0,199.2"/>
        </svg>
        "##);
    }

    #[test]
    fn nothing_is_drawn_of_nothing_and_no_number_is_skipped_over() {
        assert_eq!(losses(&[]), "");
        assert_eq!(losses(&[step_of(1, 0.5)]), "");
        let svg = losses(&[step_of(1, 0.5), step_of(2, f32::NAN), step_of(3, 0.0)]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
