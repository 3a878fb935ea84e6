//! An evaluation for a terminal: headline, key figures, languages, what got worse, and on request the long table.

use std::fmt::Write as _;

use descant_evaluate::{Evaluation, Evaluations, Measure, Monotone};

use super::key::figures;
use super::sentences::{verdict, worse};
use super::survival::survival;
use super::table::{Long, defects, found, key_figures, long};
use crate::wrap::{hanging, wrap};

/// Ids of lost questions that are named.
const LOST: usize = 3;

/// All suites, one below the other, in a page of this width. `table` is the long table in place of the short one.
pub(crate) fn evaluation_text(evaluations: &Evaluations, width: usize, table: Long) -> String {
    let replies = evaluations.replies_each();
    let mut text = String::new();
    for evaluation in &evaluations.evaluations {
        if let Some(suite) = &evaluation.suite {
            let _ = writeln!(text, "{suite}\n");
        }
        text += &one(evaluation, replies, width, table);
        text.push('\n');
    }
    text
}

fn one(evaluation: &Evaluation, replies: u64, width: usize, table: Long) -> String {
    let figures = figures(evaluation, replies);
    let mut text = String::new();
    for line in wrap(&verdict(&figures), width) {
        let _ = writeln!(text, "{line}");
    }
    text.push('\n');
    for line in evaluation.headline.iter().flatten() {
        let _ = writeln!(text, "{}", wrap(line, width - 2).join("\n  "));
    }
    if evaluation.headline.is_some() {
        text.push('\n');
    }
    text += &key_figures(evaluation, replies, width);
    text.push('\n');
    text += &match table {
        Long::No => found(evaluation.latest(), &evaluation.efforts, width),
        how => long(evaluation, how),
    };
    text.push('\n');
    for (label, line) in notes(evaluation) {
        text += &hanging(label, &line, width);
        text.push('\n');
    }
    text
}

/// What is below the tables: label and text.
fn notes(evaluation: &Evaluation) -> Vec<(&'static str, String)> {
    let mut notes = Vec::new();
    let side = evaluation.latest();
    if evaluation.after.is_some() {
        let worse = worse(evaluation);
        let nothing = format!("nothing of what was measured, in {} replies", side.replies);
        notes.push(("worse", if worse.is_empty() { nothing } else { worse.join("; ") }));
    }
    let survival = survival(evaluation);
    let odd = survival.rows.iter().filter(|(name, was, now)| {
        matches!(*name, "empty" | "missing" | "cut in it" | "looped" | "was cut")
            && was.unwrap_or(0) + now > 0
    });
    let odd: Vec<String> = odd
        .map(|(name, was, now)| match was {
            Some(was) => format!("{name} {was} to {now}"),
            None => format!("{name} {now}"),
        })
        .collect();
    if !odd.is_empty() {
        notes.push(("replies", format!("reasoning or reply {}", odd.join(", "))));
    }
    for lengths in &side.effort {
        let asked = if lengths.asked { "a language asked" } else { "none asked" };
        let means = evaluation.efforts.iter().filter_map(|e| Some((e, lengths.mean_tokens.get(e)?)));
        let means: Vec<String> = means.map(|(effort, mean)| format!("{effort} {mean:.1}")).collect();
        let grows = match lengths.monotone {
            Monotone::Yes => "grows with effort",
            Monotone::No => "does not grow with effort",
            Monotone::NotShown => "growth with effort is not shown",
        };
        notes.push(("reasoning", format!("{asked}: {} tokens; {grows}", means.join(", "))));
    }
    if let Some(loss) = side.loss.as_ref().and_then(descant_evaluate::Losses::all) {
        let before = evaluation.before.loss.as_ref().and_then(descant_evaluate::Losses::all);
        let before = before.filter(|_| evaluation.after.is_some());
        notes.push((
            "held out",
            match before {
                Some(before) => format!("loss {before:.4} before, {loss:.4} after"),
                None => format!("loss {loss:.4}"),
            },
        ));
    }
    let wrong = defects(side);
    if !wrong.is_empty() {
        notes.push(("defects", wrong));
    }
    for asked in [true, false] {
        let lost = evaluation.change(Measure::Right, asked).map(|change| &change.lost);
        if let Some(lost) = lost.filter(|lost| !lost.is_empty()) {
            let first = lost.iter().take(LOST).cloned().collect::<Vec<_>>().join(", ");
            let more =
                if lost.len() > LOST { format!(" and {} more", lost.len() - LOST) } else { String::new() };
            let asked = if asked { "a language asked" } else { "none asked" };
            notes.push(("no longer right", format!("{asked}: {first}{more}")));
        }
    }
    notes
}
