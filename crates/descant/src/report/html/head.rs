//! What a reader sees first: verdict, two sentences, a few facts, and the key figures on a scale.

use std::fmt::Write as _;

use descant_evaluate::{Claim, Evaluation, Measure};

use super::markup::{Section, escape, grouped};
use crate::report::key::{Figure, HIT, Share, Way, figures, lost_reasoning, percent};
use crate::report::run_files::RunFiles;
use crate::report::sentences::{verdict, worse};

/// The evaluation that the headline speaks of, and how many replies each prompt has.
pub(super) fn main_evaluation(run: &RunFiles) -> Option<(&Evaluation, u64)> {
    let all = run.evaluations.as_ref()?;
    Some((all.main()?, all.replies_each()))
}

/// What the tab says, and the head of the page up to its links.
pub(super) fn header(run: &RunFiles) -> (String, String) {
    let figures = main_evaluation(run).map(|(evaluation, replies)| figures(evaluation, replies));
    let hit = figures.as_ref().and_then(|figures| figures.iter().find(|f| f.name == HIT));
    let compared = hit.and_then(|figure| Some((figure, figure.before?)));
    let done = run.summary.is_some();
    let lost = figures.as_deref().and_then(lost_reasoning);
    let (short, title) = match (compared, &figures) {
        _ if let Some((before, after)) = lost => {
            let (was, now) = (before.percent(), after.percent());
            (format!("reasoning {was} % to {now} %"), heading("Fewer replies reason at all", &was, &now))
        }
        (Some((figure, before)), _) => {
            let (was, now) = (before.percent(), figure.after.percent());
            (format!("{was} % to {now} %"), headline(figure, &was, &now))
        }
        (None, Some(figures)) => ("Measured before training".into(), escape(&verdict(figures))),
        (None, None) if done => ("Trained, not measured".into(), "Trained, not measured".into()),
        (None, None) => ("In training".into(), "In training".into()),
    };
    let mut html = format!(
        "<header class=\"top\">\n<p class=\"eyebrow\"><b>{}</b><span>{}</span><span>descant {}</span></p>\n\
         <div class=\"hero\">\n<div>\n<h1>{title}</h1>\n",
        escape(&run.name()),
        escape(&run.setting("model.path").unwrap_or_default()),
        env!("CARGO_PKG_VERSION")
    );
    if !done {
        let step = run.steps.last().map_or(0, |step| step.step);
        let of = run.setting("train.max_steps").unwrap_or_default();
        let _ = writeln!(
            html,
            "<p class=\"lede\">This run has not ended: step {step} of {} is the last on this page.</p>",
            escape(&of)
        );
    }
    if let Some((evaluation, _)) = main_evaluation(run) {
        for sentence in ledes(evaluation, figures.as_deref().unwrap_or_default()) {
            let _ = writeln!(html, "<p class=\"lede\">{}</p>", escape(&sentence));
        }
    }
    html += "</div>\n<dl class=\"card\">";
    for (label, text) in card(run) {
        let _ = write!(html, "<dt>{label}</dt><dd>{}</dd>", escape(&text));
    }
    (short, html + "</dl>\n</div>\n")
}

/// The verdict with its figures set apart.
fn headline(figure: &Figure, was: &str, now: &str) -> String {
    let verb = match figure.way() {
        Some(Way::Up) => "the model now reasons in it",
        Some(Way::Down) => "the model reasons in it less often",
        _ => "no clear change in how often the model reasons in it",
    };
    heading(&format!("Asked for a language, {verb}"), was, now)
}

fn heading(what: &str, was: &str, now: &str) -> String {
    format!("{what}: <span class=\"n\">{was} % before</span>, <span class=\"n after\">{now} % after</span>.")
}

/// One sentence on reasoning that is gone, one on answers, one on spill-over, one on what got worse.
fn ledes(evaluation: &Evaluation, figures: &[Figure]) -> Vec<String> {
    // Well-formed replies and right answers do not show it, so it comes first.
    let mut sentences = less_reasoning(evaluation);
    for (name, what) in [("right, a language asked", "a language asked"), ("right, none asked", "none asked")]
    {
        let Some(figure) = figures.iter().find(|figure| figure.name == name) else { continue };
        let now = figure.after.percent();
        sentences.push(match (figure.before, figure.way()) {
            (Some(before), _) if before.percent() == now => {
                format!("Right answers, {what}: {now} % before and after.")
            }
            (Some(before), Some(Way::Up)) => {
                format!("More right answers, {what}: {} to {now} %.", before.percent())
            }
            (Some(before), Some(Way::Down)) => {
                format!("Fewer right answers, {what}: {} to {now} %.", before.percent())
            }
            (Some(before), _) => {
                format!(
                    "Right answers, {what}: {} % before, {now} % after; no clear change.",
                    before.percent()
                )
            }
            (None, _) => format!("Right answers, {what}: {now} %."),
        });
    }
    if let Some(spill) = evaluation.spill_over.as_ref().filter(|spill| spill.judged > 0) {
        sentences.push(format!(
            "Where no language was asked, {} of {} replies reason in another language than before.",
            spill.changed_language, spill.judged
        ));
    }
    let worse = worse(evaluation);
    if evaluation.after.is_some() && worse.is_empty() {
        sentences.push("Nothing that was measured got worse.".into());
    }
    let text = sentences.join(" ");
    [text].into_iter().filter(|text| !text.is_empty()).collect()
}

/// Says that fewer replies reason at all, where they do.
fn less_reasoning(evaluation: &Evaluation) -> Vec<String> {
    let mut sentences = Vec::new();
    for (asked, where_) in [(true, "a language asked"), (false, "none asked")] {
        let fell = evaluation.change(Measure::Present, asked).filter(|change| change.claim == Claim::Down);
        sentences.extend(fell.map(|change| {
            format!(
                "Fewer replies reason at all, {where_}: {} to {} %.",
                percent(change.before),
                percent(change.after)
            )
        }));
    }
    sentences
}

/// The facts beside it.
fn card(run: &RunFiles) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    facts.extend(run.setting("model.path").map(|path| ("Model", path)));
    if let Some(total) = run.manifest["total"].as_i64() {
        let rank = run.setting("lora.r").unwrap_or_default();
        facts.push(("Trained", format!("LoRA of rank {rank}: {} numbers", grouped(total))));
    }
    facts.extend(run.experts_numbers().map(|numbers| ("Experts", numbers)));
    if let Some(examples) = run.data["examples"].as_i64() {
        facts.push(("Data", format!("{} conversations", grouped(examples))));
    }
    if let Some(last) = run.steps.last() {
        let device = run.identity("device").unwrap_or("an unknown device");
        facts.push(("Steps", format!("{} × {} conversations on {device}", last.step, last.samples)));
    }
    if let Some((evaluation, _)) = main_evaluation(run) {
        let before = grouped(evaluation.before.replies as i64);
        let after = evaluation.after.as_ref().map(|after| grouped(after.replies as i64));
        let after = after.map_or_else(String::new, |after| format!(", {after} after"));
        facts.push(("Measured", format!("{before} replies before{after}")));
    }
    facts
}

/// The key figures.
pub(super) fn key_figures(run: &RunFiles) -> Option<Section> {
    let all = run.evaluations.as_ref()?;
    let mut matter = String::new();
    for evaluation in &all.evaluations {
        if let Some(suite) = &evaluation.suite {
            let _ = writeln!(matter, "<h3>{}</h3>", escape(suite));
        }
        matter += &key_table(&figures(evaluation, all.replies_each()));
    }
    matter += "<p class=\"legend\"><span><svg width=\"20\" height=\"20\" viewBox=\"0 0 20 20\" aria-hidden=\"true\">\
               <circle class=\"ring\" cx=\"10\" cy=\"10\" r=\"7\"/></svg>before</span><span><svg width=\"20\" \
               height=\"20\" viewBox=\"0 0 20 20\" aria-hidden=\"true\"><circle class=\"disc\" cx=\"10\" cy=\"10\" \
               r=\"4.5\"/></svg>after</span></p>\n";
    let lines = all.evaluations.iter().flat_map(|evaluation| evaluation.headline.iter().flatten());
    let lines: Vec<String> = lines.map(|line| format!("<li>{}</li>", escape(line))).collect();
    if !lines.is_empty() {
        let _ = writeln!(
            matter,
            "<details><summary>Paired differences and what they claim</summary><ul class=\"plain\">{}</ul></details>",
            lines.join("")
        );
    }
    matter += "<p class=\"note\">Intervals are Wilson’s at 95 % and count questions, not replies: several replies to one \
               question are not independent. They speak of other questions of this kind, not of another seed. No \
               figure is rounded up to 100 or down to 0.</p>\n";
    let (evaluation, _) = main_evaluation(run)?;
    let efforts = evaluation.efforts.join(", ");
    let rail = format!("Each question at {efforts} effort, with a language asked and with none.");
    Some(Section { id: "key", title: "Before and after", rail, matter })
}

fn key_table(figures: &[Figure]) -> String {
    let two = figures.iter().any(|figure| figure.before.is_some());
    let mut html =
        "<table class=\"key\"><caption class=\"vh\">Key figures, percent of replies, with 95 percent \
                    intervals</caption>\n<thead><tr><th scope=\"col\">percent of replies, scale 0 to 100</th>"
            .to_owned();
    if two {
        html += "<th scope=\"col\" class=\"r col\">before</th><th scope=\"col\" class=\"r col\">after</th>";
    } else {
        html += "<th scope=\"col\" class=\"r col\">measured</th>";
    }
    html += "</tr></thead>\n<tbody>\n";
    for (at, figure) in figures.iter().enumerate() {
        let lead = if at == 0 { " class=\"lead\"" } else { "" };
        let _ = write!(
            html,
            "<tr{lead}><th scope=\"row\"><span class=\"name\">{}</span>{}</th>",
            escape(figure.name),
            strip(figure)
        );
        if two {
            html +=
                &figure.before.map_or_else(|| "<td class=\"r col\">-</td>".into(), |share| value(&share, ""));
        }
        html += &value(&figure.after, " a");
        html += "</tr>\n";
    }
    html + "</tbody></table>\n"
}

fn value(share: &Share, class: &str) -> String {
    format!(
        "<td class=\"r col\"><span class=\"val{class}\">{} %</span><span class=\"ci\">{}</span><span class=\"ci\">{} of \
         {}</span></td>",
        share.percent(),
        share.interval_text(),
        share.count,
        share.of
    )
}

/// Ring and disc on a scale from 0 to 100.
fn strip(figure: &Figure) -> String {
    let words = |share: &Share| format!("{} percent, interval {}", share.percent(), share.interval_text());
    let before = figure.before.map_or_else(String::new, |share| format!("before {}; after ", words(&share)));
    let title = escape(&format!("{}: {before}{}", figure.name, words(&figure.after)));
    let mut svg = format!(
        "<svg role=\"img\"><title>{title}</title><line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"11\" y2=\"11\"/>"
    );
    for (at, half) in [(0, 5), (25, 2), (50, 3), (75, 2), (100, 5)] {
        let _ = write!(
            svg,
            "<line class=\"axis\" x1=\"{at}%\" x2=\"{at}%\" y1=\"{}\" y2=\"{}\"/>",
            11 - half,
            11 + half
        );
    }
    let mut whisker = |share: &Share, class: &str, at: u32| {
        let interval = share.interval();
        let _ = write!(
            svg,
            "<line class=\"{class}\" x1=\"{:.2}%\" x2=\"{:.2}%\" y1=\"{at}\" y2=\"{at}\"/>",
            100.0 * interval.low,
            100.0 * interval.high
        );
    };
    if let Some(before) = &figure.before {
        whisker(before, "wh0", 16);
    }
    whisker(&figure.after, "wh1", 6);
    if let Some(before) = &figure.before {
        let _ =
            write!(svg, "<circle class=\"ring\" cx=\"{:.2}%\" cy=\"11\" r=\"7\"/>", 100.0 * before.share());
    }
    let _ = write!(
        svg,
        "<circle class=\"disc\" cx=\"{:.2}%\" cy=\"11\" r=\"4.5\"/>",
        100.0 * figure.after.share()
    );
    svg + "</svg>"
}

/// Percent of a count, for tables.
pub(super) fn share_of(count: u64, of: u64) -> String {
    if of == 0 { "-".into() } else { percent(count as f64 / of as f64) }
}
