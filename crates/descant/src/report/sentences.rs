//! The key figures in sentences: the verdict, what got worse, what collapsed, one side in a few words.

use std::collections::BTreeMap;

use descant_evaluate::{Claim, Evaluation, Measure, Side, name_of};

use super::key::{Figure, HIT, Way, figures, lost_reasoning, percent};

/// The one sentence: whether the model now reasons in the language asked, or no longer reasons.
pub(crate) fn verdict(figures: &[Figure]) -> String {
    if let Some((before, after)) = lost_reasoning(figures) {
        let (was, now) = (before.percent(), after.percent());
        return format!("Fewer replies reason at all: {was} % before, {now} % after.");
    }
    let hit = figures.iter().find(|figure| figure.name == HIT);
    let Some((figure, before)) = hit.and_then(|figure| Some((figure, figure.before?))) else {
        return match hit {
            Some(figure) => format!(
                "Asked for a language, the model reasons in it in {} % of replies.",
                figure.after.percent()
            ),
            None => "No question asked for a reasoning language.".into(),
        };
    };
    let (was, now) = (before.percent(), figure.after.percent());
    match figure.way() {
        Some(Way::Up) => {
            format!("Asked for a language, the model now reasons in it: {was} % before, {now} % after.")
        }
        Some(Way::Down) => {
            format!(
                "Asked for a language, the model reasons in it less often: {was} % before, {now} % after."
            )
        }
        _ if now == was => format!(
            "Asked for a language, the model reasons in it no more often: {was} % before, {now} % after."
        ),
        _ => format!(
            "Asked for a language, no clear change in how often the model reasons in it: {was} % before, {now} % after."
        ),
    }
}

/// One side in a few words: `in the language asked 0 %, right 100 %`.
pub(crate) fn outcome(evaluation: &Evaluation, replies: u64) -> String {
    let figures = figures(evaluation, replies);
    let of = |name: &str, what: &str| {
        let figure = figures.iter().find(|figure| figure.name == name)?;
        Some(format!("{what} {} %", figure.after.percent()))
    };
    let right = of("right, a language asked", "right").or_else(|| of("right, none asked", "right"));
    let parts = [of(HIT, HIT), right, of("well-formed", "well-formed")];
    parts.into_iter().flatten().take(2).collect::<Vec<_>>().join(", ")
}

/// What got worse, a clause each; empty where nothing did.
pub(crate) fn worse(evaluation: &Evaluation) -> Vec<String> {
    let mut clauses = Vec::new();
    if let Some(spill) = evaluation.spill_over.as_ref().filter(|spill| spill.changed_language > 0) {
        clauses.push(format!(
            "{} of {} replies reason in another language though none was asked ({})",
            spill.changed_language,
            spill.judged,
            listed(&spill.changed_to)
        ));
    }
    for (measure, what) in [
        (Measure::Hit, "reasoning in the language asked"),
        (Measure::Right, "right answers"),
        (Measure::Valid, "well-formed replies"),
        (Measure::Present, "replies that reason"),
        (Measure::Ended, "replies that end"),
        (Measure::AnswerHit, "answers in the language they should have"),
    ] {
        for asked in [true, false] {
            let Some(change) = evaluation.change(measure, asked).filter(|change| change.difference < -1e-9)
            else {
                continue;
            };
            let where_ = if asked { "a language asked" } else { "none asked" };
            let shown = match change.claim {
                Claim::Down => "",
                Claim::TooFew => " (too few questions to claim it)",
                _ => " (no difference shown)",
            };
            clauses.push(format!(
                "fewer {what}, {where_}: {} to {} %{shown}",
                percent(change.before),
                percent(change.after)
            ));
        }
    }
    clauses.extend(longer(evaluation));
    clauses
}

/// Reasoning that became longer or shorter by more than a tenth, where both sides have it.
fn longer(evaluation: &Evaluation) -> Option<String> {
    let after = evaluation.after.as_ref()?;
    let ratio = |asked: &str| {
        let mean = |side: &Side| side.pooled(asked)?.mean_tokens();
        Some(mean(after)? / mean(&evaluation.before)?)
    };
    let words = |ratio: f64| {
        let percent = 100.0 * (ratio - 1.0).abs();
        (percent >= 5.0).then(|| format!("{percent:.0} % {}", if ratio > 1.0 { "longer" } else { "shorter" }))
    };
    let of = |asked, what: &str| Some(format!("{} {what}", words(ratio(asked)?)?));
    let parts: Vec<String> =
        [of("any", "where a language is asked"), of("none", "where none is")].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("reasoning {}", parts.join(", ")))
}

/// `2 Spanish, 1 mixed`.
pub(crate) fn listed(found: &BTreeMap<String, u64>) -> String {
    found.iter().map(|(code, n)| format!("{n} {}", name_of(code))).collect::<Vec<_>>().join(", ")
}

/// Warnings about shares that fell by more than their intervals: reasoning that is gone, replies that do not end.
pub(crate) fn collapse(evaluation: &Evaluation) -> Vec<String> {
    let mut lines = Vec::new();
    for (measure, what) in [
        (Measure::Present, "replies with reasoning"),
        (Measure::Valid, "well-formed replies"),
        (Measure::Ended, "replies that end"),
        (Measure::Right, "right answers"),
    ] {
        for asked in [true, false] {
            let fell = evaluation.change(measure, asked).filter(|change| change.claim == Claim::Down);
            lines.extend(fell.map(|change| {
                format!(
                    "{what}, {}: {} % before, {} % after; less by {:.1} to {:.1} points",
                    if asked { "a language asked" } else { "none asked" },
                    percent(change.before),
                    percent(change.after),
                    -100.0 * change.high,
                    -100.0 * change.low
                )
            }));
        }
    }
    lines
}
