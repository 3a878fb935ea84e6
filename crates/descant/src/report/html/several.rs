//! Several runs side by side: key figures, settings that differ, and their losses on one scale.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use descant_train::StepMetrics;

use super::chart::{Chart, figure};
use super::head::main_evaluation;
use super::learning::{points, validation_loss};
use super::markup::{closing, escape, opening, table};
use crate::report::key::figures;
use crate::report::run_files::RunFiles;

/// The page.
pub(crate) fn side_by_side(runs: &[RunFiles]) -> String {
    let mut html = opening(&format!("{} runs, Descant", runs.len()));
    let _ = write!(
        html,
        "<header class=\"top\"><p class=\"eyebrow\"><b>{} runs</b><span>descant {}</span></p><h1>Runs side by side</h1></header>\n<main>\n",
        runs.len(),
        env!("CARGO_PKG_VERSION")
    );
    let mut titles = vec![("percent of replies", "")];
    let names = names(runs);
    titles.extend(names.iter().map(|name| (name.as_str(), "r")));
    let all: Vec<Vec<_>> = runs
        .iter()
        .map(|run| main_evaluation(run).map(|(e, replies)| figures(e, replies)).unwrap_or_default())
        .collect();
    let mut rows = Vec::new();
    let mut seen = BTreeSet::new();
    for figure in all.iter().flatten() {
        if !seen.insert(figure.name) {
            continue;
        }
        let mut row = vec![escape(figure.name)];
        for of in &all {
            let found = of.iter().find(|other| other.name == figure.name);
            row.push(found.map_or_else(
                || "-".into(),
                |figure| {
                    let before =
                        figure.before.map_or_else(String::new, |before| format!("{} → ", before.percent()));
                    format!(
                        "{before}<b>{}</b> <span class=\"soft\">({})</span>",
                        figure.after.percent(),
                        figure.after.interval_text()
                    )
                },
            ));
        }
        rows.push(row);
    }
    let last =
        |run: &RunFiles| run.steps.last().map_or_else(|| "-".into(), |step| format!("{:.4}", step.loss));
    rows.push([vec!["loss at the last step".to_owned()], runs.iter().map(last).collect()].concat());
    let seconds =
        |run: &RunFiles| format!("{:.1}", run.timings.iter().map(|timing| timing.seconds).sum::<f64>());
    rows.push([vec!["seconds of steps".to_owned()], runs.iter().map(seconds).collect()].concat());
    html += &section(
        "key",
        "Key figures",
        &table("Before and after <span class=\"unit\">95 % intervals</span>", &titles, &rows, false),
    );
    html += &section("settings", "Settings that differ", &differing(runs, &titles));
    html += &section("learning", "Learning", &curves(runs, &names));
    html + &closing(concat!("Written by descant ", env!("CARGO_PKG_VERSION"), "."))
}

/// What the runs are called here: their folders, without what all of them lie in.
fn names(runs: &[RunFiles]) -> Vec<String> {
    let all: Vec<Vec<_>> = runs.iter().map(|run| run.folder.iter().collect()).collect();
    let least = all.iter().map(Vec::len).min().unwrap_or(0);
    let same = |at: usize| all.iter().all(|parts| parts[at] == all[0][at]);
    let shared = (0..least.saturating_sub(1)).take_while(|&at| same(at)).count();
    let name =
        |parts: &Vec<&std::ffi::OsStr>| parts[shared..].iter().collect::<PathBuf>().display().to_string();
    all.iter().map(name).collect()
}

/// What a curve shows of a step.
type Of = fn(&StepMetrics) -> Option<f64>;

/// Loss and first token of every run, all on the scales of the first kind.
fn curves(runs: &[RunFiles], names: &[String]) -> String {
    let kinds: [(&str, &str, Of); 2] = [
        ("Loss", "nats per trained token", |step| Some(f64::from(step.loss))),
        ("The token that chooses the language", "nats", |step| step.first_analysis_loss.map(f64::from)),
    ];
    let mut html = String::new();
    for (title, unit, of) in kinds {
        let all: Vec<(f64, f64)> = runs.iter().flat_map(|run| points(run, of)).collect();
        if all.is_empty() {
            continue;
        }
        let _ = write!(
            html,
            "<h3>{title} <span class=\"unit\">{unit}, the same scales for all</span></h3>\n<div class=\"two\">\n"
        );
        for (run, name) in runs.iter().zip(names) {
            let watched = if title == "Loss" { points(run, validation_loss) } else { Vec::new() };
            html += &figure(&Chart {
                title: name,
                caption: if watched.is_empty() { "" } else { "Dashed: examples that are not trained on." },
                points: &points(run, of),
                second: &watched,
                class: "l1",
                beside: &all,
                ..Chart::default()
            });
        }
        html += "</div>\n";
    }
    html
}

fn section(id: &str, title: &str, matter: &str) -> String {
    format!(
        "<section aria-labelledby=\"{id}\"><div class=\"rail\"><h2 id=\"{id}\">{title}</h2></div><div class=\"matter\">\n{matter}</div></section>\n"
    )
}

/// Values of the identity that are not the same in all runs.
fn differing(runs: &[RunFiles], titles: &[(&str, &str)]) -> String {
    let names: BTreeSet<&str> =
        runs.iter().flat_map(|run| run.identity.iter().map(|(name, _)| name.as_str())).collect();
    let mut rows = Vec::new();
    for name in names {
        let values: Vec<&str> = runs.iter().map(|run| run.identity(name).unwrap_or("-")).collect();
        if values.iter().any(|value| *value != values[0]) {
            let values = values.iter().map(|value| escape(value));
            rows.push(std::iter::once(escape(name)).chain(values).collect());
        }
    }
    if rows.is_empty() {
        return "<p>None: these are equal runs.</p>\n".into();
    }
    // Values are texts of any length: they are broken, where figures are in a line.
    let mut titles: Vec<_> = titles.iter().map(|(title, _)| (*title, "any")).collect();
    titles[0] = ("setting", "");
    table("<span class=\"vh\">Settings that differ</span>", &titles, &rows, false)
}
