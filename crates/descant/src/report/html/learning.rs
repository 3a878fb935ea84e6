//! What the steps did: loss, the token that chooses the language, rate, gradient; speed and memory.

use std::fmt::Write as _;

use descant_evaluate::Losses;
use descant_train::StepMetrics;

use super::chart::{BINS, Chart, figure};
use super::head::main_evaluation;
use super::markup::{Section, escape, grouped};
use crate::report::run_files::RunFiles;
use crate::words::MIB;

/// Loss, first token, rate, gradient norm.
pub(super) fn learning(run: &RunFiles) -> Option<Section> {
    let last = run.steps.last()?;
    let mut matter = "<div class=\"two\">\n".to_owned();
    for chart in charts(run, last.step as f64) {
        matter += &chart;
    }
    matter += "</div>\n";
    matter += &super::routing::gradients(run);
    if run.steps.len() > BINS {
        matter += "<p class=\"note\">Lines are means of neighbouring steps; bands show the minimum and the maximum.</p>\n";
    }
    let skipped =
        if last.skipped > 0 { format!(" {} updates were skipped.", last.skipped) } else { String::new() };
    let rail = format!(
        "{} steps of {} conversations, {:.2} passes. Steps run across.{skipped}",
        grouped(last.step as i64),
        last.samples,
        last.epoch
    );
    matter += &losses(run);
    matter += &validation(run);
    Some(Section { id: "learning", title: "Learning", rail, matter })
}

/// Points of a curve: step and value, where there is one.
pub(super) fn points(run: &RunFiles, value: impl Fn(&StepMetrics) -> Option<f64>) -> Vec<(f64, f64)> {
    run.steps.iter().filter_map(|step| Some((step.step as f64, value(step)?))).collect()
}

/// The loss on the examples of `data.validation`, where a step looked at it.
pub(super) fn validation_loss(step: &StepMetrics) -> Option<f64> {
    step.validation.as_ref().map(|validation| f64::from(validation.loss))
}

/// The charts of what the steps did, the last of which was `last`.
fn charts(run: &RunFiles, last: f64) -> [String; 4] {
    let held_out = held_out(run, last);
    let watched = points(run, validation_loss);
    let mut caption = "The line is the training batch of each step".to_owned();
    if !watched.is_empty() {
        caption += ", the dashed line examples that are not trained on, the same ones each time";
    }
    if !held_out.is_empty() {
        caption += ", the diamonds are the held-out rows";
    }
    let caption = format!("{caption}.");
    let clip = run.setting("train.max_grad_norm").and_then(|text| text.parse().ok());
    let plain = Chart { class: "l1", ..Chart::default() };
    [
        figure(&Chart {
            title: "Loss",
            unit: "nats per trained token",
            caption: &caption,
            points: &points(run, |step| Some(f64::from(step.loss))),
            diamonds: &held_out,
            second: &watched,
            ..plain
        }),
        figure(&Chart {
            title: "The token that chooses the language",
            unit: "nats",
            caption: "The first token of the reasoning alone: once it is right, the rest follows in that language.",
            points: &points(run, |step| step.first_analysis_loss.map(f64::from)),
            class: "l2",
            ..plain
        }),
        figure(&Chart {
            title: "Learning rate",
            points: &points(run, |step| Some(step.learning_rate)),
            from_zero: true,
            ..plain
        }),
        figure(&Chart {
            title: "Gradient norm",
            unit: "of all trained parameters, before clipping",
            points: &points(run, |step| Some(f64::from(step.grad_norm))),
            reference: clip.map(|clip| (clip, "clip")),
            ..plain
        }),
    ]
}

/// The loss on the held-out rows before the first step and after the last.
fn held_out(run: &RunFiles, last: f64) -> Vec<(f64, f64, &'static str)> {
    let Some((evaluation, _)) = main_evaluation(run) else { return Vec::new() };
    let of = |side: &descant_evaluate::Side| side.loss.as_ref().and_then(Losses::all);
    let before = of(&evaluation.before).map(|loss| (0.0, loss, "held out, before"));
    let after = evaluation.after.as_ref().and_then(of);
    let after = after.map(|loss| (last, loss, "held out, after"));
    before.into_iter().chain(after).collect()
}

/// Losses by channel on the validation examples: at the first look, at the best and at the last.
fn validation(run: &RunFiles) -> String {
    let looks: Vec<_> = run.steps.iter().filter_map(|s| Some((s.step, s.validation.as_ref()?))).collect();
    let best = looks.iter().copied().reduce(|best, next| if next.1.loss < best.1.loss { next } else { best });
    let (Some(first), Some(best), Some(last)) = (looks.first(), best, looks.last()) else {
        return String::new();
    };
    let shown = [*first, best, *last];
    let mut rows = vec![(
        "all, with the trained weights".to_owned(),
        first.1.tokens,
        shown.map(|(_, look)| Some(look.loss)),
    )];
    for (channel, loss) in &first.1.channels {
        let of = shown.map(|(_, look)| Some(look.channels.get(channel)?.loss));
        rows.push((escape(channel), loss.tokens, of));
    }
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, tokens, losses)| {
            let losses = losses.map(|loss| loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.4}")));
            [name, grouped(tokens as i64)].into_iter().chain(losses).collect()
        })
        .collect();
    let [first, best, last] = shown.map(|(step, _)| format!("step {step}"));
    let best = format!("{best}, the least");
    let titles =
        [("channel", ""), ("tokens", "r"), (first.as_str(), "r"), (best.as_str(), "r"), (last.as_str(), "r")];
    super::markup::table(
        "Loss on validation examples <span class=\"unit\">nats per token</span>",
        &titles,
        &rows,
        false,
    )
}

/// Losses by channel on the held-out rows.
fn losses(run: &RunFiles) -> String {
    let Some((evaluation, _)) = main_evaluation(run) else { return String::new() };
    let Some(before) = &evaluation.before.loss else { return String::new() };
    let after = evaluation.after.as_ref().and_then(|after| after.loss.as_ref());
    let mut rows = Vec::new();
    for (channel, mean) in &before.channels {
        let now = after.and_then(|after| after.channels.get(channel));
        let name = if channel == "all" { "all, with the trained weights" } else { channel };
        rows.push(vec![
            escape(name),
            grouped(mean.tokens as i64),
            format!("{:.4}", mean.mean_nats),
            now.map_or_else(|| "-".into(), |now| format!("{:.4}", now.mean_nats)),
            now.map_or_else(|| "-".into(), |now| format!("{:.3}", now.perplexity)),
        ]);
    }
    if let Some(first) = &before.first {
        let now = after.and_then(|after| after.first.as_ref());
        let shown = |first: &descant_evaluate::FirstToken| {
            format!("{:.4}, first of all in {} of {}", first.mean_nats, first.rank_1, first.rows)
        };
        rows.push(vec![
            "the token that chooses the language".into(),
            first.rows.to_string(),
            shown(first),
            now.map_or_else(|| "-".into(), shown),
            "-".into(),
        ]);
    }
    let titles =
        [("channel", ""), ("tokens", "r"), ("before", "r"), ("after", "r"), ("perplexity after", "r")];
    super::markup::table(
        "Loss on held-out rows <span class=\"unit\">nats per token</span>",
        &titles,
        &rows,
        false,
    )
}

/// Speed of the steps, and memory planned against measured.
pub(super) fn speed(run: &RunFiles) -> Option<Section> {
    let timings = &run.timings;
    if timings.is_empty() {
        return None;
    }
    let points: Vec<(f64, f64)> = timings.iter().map(|t| (t.step as f64, t.tokens_per_second)).collect();
    let mut sorted: Vec<f64> = points.iter().map(|p| p.1).filter(|rate| rate.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    let seconds: f64 = timings.iter().map(|timing| timing.seconds).sum();
    let mut matter = "<div class=\"two\">\n".to_owned();
    matter += &figure(&Chart {
        title: "Speed",
        unit: "tokens a second",
        caption: "From 0. Prompt and reply tokens of each step.",
        points: &points,
        reference: Some((median, "median")),
        class: "l1",
        from_zero: true,
        ..Chart::default()
    });
    matter += &phases(run);
    matter += "</div>\n";
    matter += &memory(run);
    let device = run.identity("device").unwrap_or("an unknown device");
    let wall =
        run.number("wall_seconds").map_or_else(String::new, |wall| format!(" in {wall:.1} s of wall time"));
    let rail = format!("{device}. {seconds:.1} s of steps{wall}.");
    Some(Section { id: "speed", title: "Speed and memory", rail, matter })
}

/// Seconds by phase.
fn phases(run: &RunFiles) -> String {
    let Some(phases) = run.summary.as_ref().and_then(|summary| summary["phases"].as_array()) else {
        return String::new();
    };
    let rows: Vec<Vec<String>> = phases
        .iter()
        .map(|phase| {
            let name = phase["name"].as_str().unwrap_or_default();
            let seconds = phase["seconds"].as_f64().unwrap_or(0.0);
            let mib = |key: &str, absent: &str| {
                phase[key].as_f64().map_or_else(|| absent.to_owned(), |bytes| format!("{:.1}", bytes / MIB))
            };
            vec![
                escape(name),
                format!("{seconds:.1}"),
                mib("planned_memory_bytes", "-"),
                mib("peak_memory_bytes", "not known"),
            ]
        })
        .collect();
    let titles = [("phase", ""), ("seconds", "r"), ("planned, MiB", "r"), ("most so far, MiB", "r")];
    super::markup::table("Where the time and memory went", &titles, &rows, false)
}

/// Parts of the plan, and the measured peak.
fn memory(run: &RunFiles) -> String {
    let Some(summary) = &run.summary else { return String::new() };
    let mib = |bytes: f64| format!("{:.1}", bytes / MIB);
    let mut rows = Vec::new();
    for part in summary["planned_memory"].as_array().into_iter().flatten() {
        let (name, bytes) =
            (part["part"].as_str().unwrap_or_default(), part["bytes"].as_f64().unwrap_or(0.0));
        rows.push(vec![escape(name), mib(bytes)]);
    }
    if let Some(planned) = summary["planned_memory_bytes"].as_f64() {
        rows.push(vec!["planned total, at its peak".into(), mib(planned)]);
    }
    let peak = summary["peak_memory_bytes"].as_f64();
    rows.push(vec![
        "<b>measured peak</b>".into(),
        peak.map_or_else(|| "not known on this device".into(), |peak| format!("<b>{}</b>", mib(peak))),
    ]);
    let mut html = super::markup::table(
        "Memory <span class=\"unit\">MiB, planned against measured</span>",
        &[("part of the plan", ""), ("MiB", "r")],
        &rows,
        false,
    );
    if let (Some(planned), Some(peak)) =
        (summary["planned_memory_bytes"].as_f64(), peak.filter(|peak| *peak > 0.0))
    {
        let _ = writeln!(
            html,
            "<p class=\"note\">The plan is {:.0} % {} the measured peak. Steps and held-out questions are never in memory \
             together: the larger of the two is what is planned for.</p>",
            100.0 * (planned / peak - 1.0).abs(),
            if planned >= peak { "above" } else { "below" }
        );
    }
    html
}
