//! Replies as they are, and what got worse.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use descant_evaluate::{Claim, Evaluation, Measure};

use super::head::main_evaluation;
use super::markup::{Section, escape};
use crate::report::key::percent;
use crate::report::run_files::RunFiles;
use crate::report::samples::{Sample, parts};
use crate::report::sentences::listed;
use crate::report::survival::{Survival, survival};

/// A longer text is cut in the middle.
const LONGEST: usize = 1200;
const HEAD: usize = 800;
const TAIL: usize = 300;
/// Prompts that are shown; the others are in the files of samples.
const PROMPTS: usize = 4;

/// The section of samples.
pub(super) fn samples(run: &RunFiles) -> Option<Section> {
    let mut prompts: Vec<(&str, Vec<&Sample>)> = Vec::new();
    for sample in &run.samples {
        match prompts.iter_mut().find(|(id, _)| *id == sample.id) {
            Some((_, of)) => of.push(sample),
            None => prompts.push((&sample.id, vec![sample])),
        }
    }
    if prompts.is_empty() {
        return None;
    }
    in_turn(&mut prompts);
    let left_out = prompts.len().saturating_sub(PROMPTS);
    let mut matter = String::new();
    for (at, (_, of)) in prompts.iter().take(PROMPTS).enumerate() {
        if at == 1 {
            matter += "<details><summary>More prompts</summary>\n";
        }
        matter += &group(of);
    }
    if prompts.len() > 1 {
        matter += "</details>\n";
    }
    matter += "<p class=\"note\">Dotted rule and italic: the reasoning. Solid rule and bold: the answer.";
    if left_out > 0 {
        let _ =
            write!(matter, " {left_out} more prompts are in samples-before.jsonl and samples-after.jsonl.");
    }
    matter += "</p>\n";
    let rail = "The first questions of the file, not selected, at each effort.".to_owned();
    Some(Section { id: "samples", title: "Samples", rail, matter })
}

/// The first question of each suite, then the second of each, and so on.
fn in_turn(prompts: &mut [(&str, Vec<&Sample>)]) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut places: Vec<usize> = Vec::new();
    for (_, of) in prompts.iter() {
        let count = seen.entry(of[0].suite.as_str()).or_insert(0);
        places.push(*count);
        *count += 1;
    }
    let mut order: BTreeMap<&str, usize> = BTreeMap::new();
    for ((id, _), place) in prompts.iter().zip(places) {
        order.insert(id, place);
    }
    // Stable: suites stay in their order.
    prompts.sort_by_key(|(id, _)| order.get(id).copied());
}

fn group(samples: &[&Sample]) -> String {
    let first = samples[0];
    let asked = first
        .asked
        .as_ref()
        .map_or_else(|| "No language asked".to_owned(), |language| format!("Asked to reason in {language}"));
    let user = if first.user.is_empty() { &first.id } else { &first.user };
    let mut html = format!(
        "<p class=\"ask\"><b>{}</b>{}</p>\n<div class=\"pairs\">",
        escape(&asked),
        escape(&shortened(user))
    );
    let two = samples.iter().any(|sample| sample.after.is_some());
    let (left, right) = if two { ("base", "with the adapter") } else { ("measured", "") };
    let _ = write!(
        html,
        "<div class=\"pair head\" aria-hidden=\"true\"><span></span><span>{left}</span><span>{right}</span></div>"
    );
    for sample in samples {
        let _ = write!(
            html,
            "<div class=\"pair\"><h3>{} <small>effort</small></h3><div><p class=\"who\">{left}</p>{}</div>",
            escape(&sample.effort),
            reply(&sample.before, None)
        );
        if let Some(after) = &sample.after {
            let _ = write!(
                html,
                "<div><p class=\"who\">{right}</p>{}</div>",
                reply(after, sample.language.as_deref())
            );
        }
        html += "</div>\n";
    }
    html + "</div>\n"
}

/// A reply by its channels. `language` is what was asked, for readers aloud.
fn reply(text: &str, language: Option<&str>) -> String {
    let mut html = String::new();
    for (channel, text) in parts(text) {
        let (class, lang) = match channel {
            "analysis" => (" an", language),
            "final" => (" fi", None),
            _ => ("", None),
        };
        let lang = lang.map_or_else(String::new, |code| format!(" lang=\"{}\"", escape(code)));
        let _ = write!(
            html,
            "<div class=\"ch{class}\"><span class=\"tag\">{}</span><p class=\"say\"{lang}>{}</p></div>",
            escape(channel),
            escape(&shortened(text))
        );
    }
    if html.is_empty() { "<p class=\"note\">nothing was said</p>".into() } else { html }
}

/// The beginning and the end of a long text.
fn shortened(text: &str) -> String {
    let length = text.chars().count();
    if length <= LONGEST {
        return text.to_owned();
    }
    let head: String = text.chars().take(HEAD).collect();
    let tail: String = text.chars().skip(length - TAIL).collect();
    format!("{head} [{} characters left out] {tail}", length - HEAD - TAIL)
}

/// What got worse; always there where both sides were measured.
pub(super) fn worse(run: &RunFiles) -> Option<Section> {
    let all = run.evaluations.as_ref()?;
    let (main, _) = main_evaluation(run)?;
    main.after.as_ref()?;
    let mut rows = Vec::new();
    for evaluation in &all.evaluations {
        rows.extend(rows_of(evaluation));
    }
    let replies: u64 = all.evaluations.iter().filter_map(|e| Some(e.after.as_ref()?.replies)).sum();
    let mut matter = String::new();
    if rows.is_empty() {
        let questions = main.changes.iter().flatten().map(|change| change.questions).max().unwrap_or(0);
        let unseen = descant_evaluate::statistics::wilson(0, questions).high;
        let _ = writeln!(
            matter,
            "<p>Nothing that was measured got worse, on {replies} replies. With {questions} questions, a change in fewer \
             than {} % of them could have gone unseen.</p>",
            percent(unseen)
        );
    } else {
        let titles = [("what", ""), ("before", "r"), ("after", "r"), ("claimed", ""), ("for example", "")];
        matter += &super::markup::table("<span class=\"vh\">What got worse</span>", &titles, &rows, false);
    }
    matter += &reasoning(main);
    matter += &lost(run, main);
    let rail = "Every figure that got worse, and every change that was not requested.".to_owned();
    Some(Section { id: "worse", title: "What got worse", rail, matter })
}

fn rows_of(evaluation: &Evaluation) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    if let Some(spill) = evaluation.spill_over.as_ref().filter(|spill| spill.changed_language > 0) {
        rows.push(vec![
            "<b>Another language, though none was asked</b>".into(),
            format!("0 of {}", spill.judged),
            format!("{} of {}", spill.changed_language, spill.judged),
            "counted".into(),
            escape(&listed(&spill.changed_to)),
        ]);
    }
    for (measure, what) in [
        (Measure::Hit, "Reasoning in the language asked"),
        (Measure::Right, "Right answers"),
        (Measure::Valid, "Well-formed replies"),
        (Measure::Present, "Replies that reason"),
        (Measure::Ended, "Replies that end"),
        (Measure::AnswerHit, "Answers in the language they should have"),
    ] {
        for asked in [true, false] {
            let Some(change) = evaluation.change(measure, asked).filter(|change| change.difference < -1e-9)
            else {
                continue;
            };
            rows.push(vec![
                format!("<b>{what}</b>, {}", if asked { "a language asked" } else { "none asked" }),
                format!("{} %", percent(change.before)),
                format!("{} %", percent(change.after)),
                match change.claim {
                    Claim::Down => "fell".into(),
                    Claim::TooFew => "too few questions".into(),
                    _ => "not shown".into(),
                },
                escape(&change.lost.iter().take(3).cloned().collect::<Vec<_>>().join(", ")),
            ]);
        }
    }
    rows
}

/// What became of the reasoning, before and after.
fn reasoning(evaluation: &Evaluation) -> String {
    let Survival { replies: (Some(before), after), rows } = survival(evaluation) else {
        return String::new();
    };
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, was, now)| {
            vec![name.to_owned(), was.map_or_else(|| "-".into(), |was| was.to_string()), now.to_string()]
        })
        .collect();
    let caption =
        format!("Does the reasoning survive? <span class=\"unit\">replies, of {before} and {after}</span>");
    super::markup::table(&caption, &[("", ""), ("before", "r"), ("after", "r")], &rows, false)
}

/// How many replies to plain prompts are not the base's, byte for byte.
fn lost(run: &RunFiles, evaluation: &Evaluation) -> String {
    let Some(plain) = &run.plain else { return String::new() };
    let Some(spill) = &evaluation.spill_over else { return String::new() };
    let rows = [
        vec!["the same, byte for byte".to_owned(), plain.same.to_string()],
        vec!["another text".to_owned(), (plain.pairs - plain.same).to_string()],
        vec!["of these, reasoning in another language".to_owned(), spill.changed_language.to_string()],
        vec!["of these, no longer right".to_owned(), spill.right_lost.to_string()],
    ];
    let caption = format!(
        "Replies where nothing was asked, against the base’s <span class=\"unit\">of {}, all suites</span>",
        plain.pairs
    );
    super::markup::table(&caption, &[("", ""), ("replies", "r")], &rows, false)
}
