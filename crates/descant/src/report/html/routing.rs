//! Where tokens go among the experts, before and after, and the gradient of each kind of matrix over the steps.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::chart::number;
use super::grid::{Grid, SHADES};
use super::markup::{escape, grouped, table};
use crate::report::key::percent;
use crate::report::run_files::{GradientLine, RunFiles};

/// Load against an even share, up to which each shade goes; more is the last.
const SHADE_UPTO: [f64; SHADES - 1] = [0.4, 0.8, 1.25, 2.0];
/// Layers that are listed: those whose routing moved most.
const LISTED: usize = 6;
/// A small chart.
const WIDTH: f64 = 200.0;
const HEIGHT: f64 = 92.0;
const EDGE: f64 = 8.0;
const LABELS: f64 = 22.0;

/// Load of the experts.
pub(super) fn experts(run: &RunFiles) -> String {
    let Some(loads) = &run.experts else { return String::new() };
    let n = loads.before.layers.first().map_or(0, Vec::len);
    if n == 0 || loads.before.layers.len() != loads.after.layers.len() {
        return String::new();
    }
    let rows: Vec<String> = (0..loads.before.layers.len()).map(|layer| layer.to_string()).collect();
    let columns: Vec<String> = (0..n).map(|expert| expert.to_string()).collect();
    let picture = |title: &str, layers: &[Vec<u64>]| {
        let relative = |layer: usize, expert: usize| {
            let of = &layers[layer];
            let even = of.iter().sum::<u64>() as f64 / of.len().max(1) as f64;
            of.get(expert).copied().unwrap_or(0) as f64 / even.max(f64::MIN_POSITIVE)
        };
        let unused = layers.iter().flatten().filter(|count| **count == 0).count();
        let words = format!("{n} experts in each of {} layers; {unused} got no token", layers.len());
        let grid = Grid {
            title: &format!("Load of the experts, {title}"),
            words: &words,
            rows: &rows,
            columns: &columns,
            few: true,
            axes: "experts across, layers down",
        };
        let shade = |layer: usize, expert: usize| {
            let load = relative(layer, expert);
            (load > 0.0).then(|| SHADE_UPTO.iter().take_while(|upto| load >= **upto).count())
        };
        format!("<div><p class=\"who always\">{title}</p>{}</div>", grid.svg(&shade, &|_, _| false))
    };
    let mut html = format!(
        "<figure><h3>Load of the experts <span class=\"unit\">against an even share</span></h3><div class=\"two\">{}{}</div>\
         <figcaption>Shades: under 0.4, 0.8, 1.25, 2 times an even share, and more; empty: no token. Counted over {} tokens \
         of the first {} rows of the training data, each of which goes to {} experts of a layer.</figcaption></figure>\n",
        picture("base", &loads.before.layers),
        picture("with the adapter", &loads.after.layers),
        grouped(loads.before.tokens as i64),
        grouped(loads.rows as i64),
        loads.experts_per_token
    );
    html += &moved(&loads.before.layers, &loads.after.layers);
    html
}

/// The layers whose routing changed most.
fn moved(before: &[Vec<u64>], after: &[Vec<u64>]) -> String {
    let share = |of: &[u64], expert: usize| of[expert] as f64 / of.iter().sum::<u64>().max(1) as f64;
    let mut layers: Vec<(f64, usize)> = before
        .iter()
        .zip(after)
        .enumerate()
        .map(|(layer, (was, now))| {
            let experts = 0..was.len().min(now.len());
            let distance: f64 = experts.map(|expert| (share(was, expert) - share(now, expert)).abs()).sum();
            (distance / 2.0, layer)
        })
        .collect();
    layers.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let busiest = |of: &[u64]| {
        let most = of.iter().enumerate().max_by_key(|(expert, count)| (**count, std::cmp::Reverse(*expert)));
        most.map_or_else(|| "-".into(), |(expert, _)| format!("{expert}: {} %", percent(share(of, expert))))
    };
    let unused = |of: &[u64]| of.iter().filter(|count| **count == 0).count().to_string();
    let rows: Vec<Vec<String>> = layers
        .iter()
        .take(LISTED)
        .map(|(distance, layer)| {
            let (was, now) = (&before[*layer], &after[*layer]);
            vec![
                layer.to_string(),
                format!("{} %", percent(*distance)),
                busiest(was),
                busiest(now),
                unused(was),
                unused(now),
            ]
        })
        .collect();
    let titles = [
        ("layer", ""),
        ("moved", "r"),
        ("busiest, base", "r"),
        ("with the adapter", "r"),
        ("unused, base", "r"),
        ("with the adapter", "r"),
    ];
    let caption = "Layers whose routing moved most <span class=\"unit\">moved: share of choices that go to another expert</span>";
    table(caption, &titles, &rows, false)
}

/// The gradient's norm by kind of matrix, small charts on one logarithmic scale.
pub(super) fn gradients(run: &RunFiles) -> String {
    let kinds = by_kind(&run.gradients);
    let values =
        || kinds.values().flatten().map(|(_, norm)| *norm).filter(|norm| *norm > 0.0 && norm.is_finite());
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    if run.gradients.len() < 2 || !least.is_finite() {
        return String::new();
    }
    let (low, high) = (least.log10(), most.log10().max(least.log10() + 1e-6));
    let (first, last) = (run.gradients[0].step as f64, run.gradients[run.gradients.len() - 1].step as f64);
    let x = |step: u64| EDGE + (step as f64 - first) / (last - first).max(1.0) * (WIDTH - 2.0 * EDGE);
    let y = |norm: f64| {
        let up = (norm.clamp(least, most).log10() - low) / (high - low);
        HEIGHT - LABELS - up * (HEIGHT - LABELS - EDGE)
    };
    let mut html = "<figure><h3>Gradient norm by matrix <span class=\"unit\">before the clip, all layers together</span>\
                    </h3><div class=\"four\">"
        .to_owned();
    for (kind, points) in &kinds {
        let (Some(begin), Some(end)) = (points.first(), points.last()) else { continue };
        let line: Vec<String> =
            points.iter().map(|(step, norm)| format!("{:.1},{:.1}", x(*step), y(*norm))).collect();
        let words = format!("{} at step {}, {} at step {}", number(begin.1), begin.0, number(end.1), end.0);
        let _ = write!(
            html,
            "<div><p class=\"who always\"><code>{}</code></p><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"><title>Gradient \
             norm of {}</title><desc>{}</desc><path class=\"axis\" d=\"M{EDGE} {:.0}H{:.0}\"/><polyline class=\"l1\" \
             points=\"{}\"/><text x=\"{EDGE}\" y=\"{:.0}\">{}</text><text class=\"v\" x=\"{:.0}\" y=\"{:.0}\" \
             text-anchor=\"end\">{}</text></svg></div>",
            escape(kind),
            escape(kind),
            escape(&words),
            HEIGHT - LABELS,
            WIDTH - EDGE,
            line.join(" "),
            HEIGHT - 6.0,
            number(begin.1),
            WIDTH - EDGE,
            HEIGHT - 6.0,
            number(end.1)
        );
    }
    let _ = writeln!(
        html,
        "</div><figcaption>One logarithmic scale from {} to {} for all; step {first} on the left, {last} on the right. \
         gradients.jsonl has every layer.</figcaption></figure>",
        number(least),
        number(most)
    );
    html
}

/// Norms of all layers together, by what follows the layer in a site's name.
fn by_kind(lines: &[GradientLine]) -> BTreeMap<String, Vec<(u64, f64)>> {
    let mut kinds: BTreeMap<String, Vec<(u64, f64)>> = BTreeMap::new();
    for line in lines {
        let mut squares: BTreeMap<&str, f64> = BTreeMap::new();
        for (site, norm) in &line.norms {
            let kind = site.rsplit('.').next().unwrap_or(site);
            *squares.entry(kind).or_insert(0.0) += f64::from(*norm).powi(2);
        }
        for (kind, square) in squares {
            kinds.entry(kind.to_owned()).or_default().push((line.step, square.sqrt()));
        }
    }
    kinds
}
