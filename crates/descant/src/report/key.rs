//! The five figures that a reader wants, and the sentences made of them: verdict, what got worse, what stayed.
//!
//! Terminal, report and card take them from here, so that they cannot differ. Intervals are Wilson's at 95 % and count
//! questions, because replies to one question are not independent. Neither covers another seed.

use std::collections::BTreeMap;

use descant_evaluate::statistics::{Interval, wilson_of};
use descant_evaluate::{Cell, Claim, Evaluation, Measure, Side, name_of};

/// The figure that the verdict speaks of.
pub(crate) const HIT: &str = "in the language asked";

/// The figure that goes before it where it fell.
const REASONS: &str = "reasons at all";

/// A share of replies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Share {
    /// Replies that have it.
    pub(crate) count: u64,
    /// Replies that could.
    pub(crate) of: u64,
    /// Questions that they answer.
    pub(crate) questions: u64,
}

impl Share {
    fn new(count: u64, of: u64, questions: u64) -> Option<Self> {
        (of > 0).then_some(Self { count, of, questions: questions.min(of) })
    }

    /// From 0 to 1.
    pub(crate) fn share(&self) -> f64 {
        self.count as f64 / self.of as f64
    }

    /// At 95 %.
    pub(crate) fn interval(&self) -> Interval {
        wilson_of(self.share(), self.questions)
    }

    /// In percent, never rounded up to 100 or down to 0.
    pub(crate) fn percent(&self) -> String {
        percent(self.share())
    }

    /// `95.7 to 99.9`.
    pub(crate) fn interval_text(&self) -> String {
        let Interval { low, high } = self.interval();
        format!("{} to {}", percent(low), percent(high))
    }
}

/// A share in percent: whole ones without a decimal, all others with one; never rounded up to 100 or down to 0.
pub(crate) fn percent(share: f64) -> String {
    let value = 100.0 * share;
    if value <= 0.0 {
        return "0".into();
    }
    if value >= 100.0 {
        return "100".into();
    }
    let text = format!("{:.1}", value.clamp(0.1, 99.9));
    text.strip_suffix(".0")
        .filter(|_| (value - value.round()).abs() < 1e-9)
        .map_or(text.clone(), str::to_owned)
}

/// A figure, before and after.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    /// In words.
    pub(crate) name: &'static str,
    /// Of the base, where there are two sides.
    pub(crate) before: Option<Share>,
    /// Of the adapter, or of the only side.
    pub(crate) after: Share,
}

/// Which way a figure went, by its intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// After's interval lies above before's.
    Up,
    /// They overlap.
    Unclear,
    /// It lies below.
    Down,
}

impl Figure {
    pub(crate) fn way(&self) -> Option<Way> {
        let (was, now) = (self.before?.interval(), self.after.interval());
        Some(if now.low > was.high {
            Way::Up
        } else if now.high < was.low {
            Way::Down
        } else {
            Way::Unclear
        })
    }
}

/// Questions behind the replies of one kind: the most at any effort, by replies each.
fn questions(side: &Side, asked: &[&str], of: fn(&Cell) -> u64, replies: u64) -> u64 {
    let efforts: std::collections::BTreeSet<&str> =
        side.cells.iter().map(|cell| cell.effort.as_str()).collect();
    let at =
        |effort: &str| asked.iter().filter_map(|asked| side.cell(effort, asked)).map(of).max().unwrap_or(0);
    efforts.into_iter().map(at).max().unwrap_or(0) / replies.max(1)
}

fn share(
    side: &Side,
    asked: &[&str],
    count: fn(&Cell) -> u64,
    of: fn(&Cell) -> u64,
    replies: u64,
) -> Option<Share> {
    let cells: Vec<Cell> = asked.iter().filter_map(|asked| side.pooled(asked)).collect();
    let sum = |what: fn(&Cell) -> u64| cells.iter().map(what).sum::<u64>();
    Share::new(sum(count), sum(of), questions(side, asked, of, replies))
}

/// The five key figures of an evaluation, without those that nothing was measured for; a sixth, how many replies reason
/// at all, where not all of them do. `replies` is how many each prompt has.
pub(crate) fn figures(evaluation: &Evaluation, replies: u64) -> Vec<Figure> {
    let of_cells = |name, asked: &[&str], count: fn(&Cell) -> u64, of: fn(&Cell) -> u64| {
        let share = |side: &Side| share(side, asked, count, of, replies);
        let after = share(evaluation.latest())?;
        let before = evaluation.after.as_ref().and_then(|_| share(&evaluation.before));
        Some(Figure { name, before, after })
    };
    let same_language = || {
        let spill = evaluation.spill_over.as_ref().filter(|spill| spill.judged > 0)?;
        let n = questions(evaluation.latest(), &["none"], |cell| cell.n, replies);
        let after = Share::new(spill.judged - spill.changed_language, spill.judged, n)?;
        let before = Share::new(spill.judged, spill.judged, n);
        Some(Figure { name: "language as before, none asked", before, after })
    };
    [
        of_cells(HIT, &["any"], |c| c.hit, |c| c.n),
        of_cells("right, a language asked", &["any"], |c| c.right, |c| c.scored),
        same_language(),
        of_cells("right, none asked", &["none"], |c| c.right, |c| c.scored),
        of_cells("well-formed", &["none", "any"], |c| c.valid, |c| c.n),
        of_cells(REASONS, &["none", "any"], |c| c.analysis.present, |c| c.n).filter(|figure| {
            [figure.before, Some(figure.after)].into_iter().flatten().any(|share| share.count < share.of)
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The same of one side at one effort, `None` where nothing of it was measured there.
pub(crate) fn figures_at(evaluation: &Evaluation, effort: &str, replies: u64) -> Vec<Figure> {
    let mut side = evaluation.latest().clone();
    side.cells.retain(|cell| cell.effort == effort);
    figures(&Evaluation { before: side, after: None, spill_over: None, ..evaluation.clone() }, replies)
}

/// How many replies reason at all, before and after, where that fell: the language of reasoning that is gone is not
/// news.
pub(crate) fn lost_reasoning(figures: &[Figure]) -> Option<(Share, Share)> {
    let fell = figures.iter().find(|figure| figure.name == REASONS && figure.way() == Some(Way::Down))?;
    Some((fell.before?, fell.after))
}

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

/// What became of the reasoning and of the replies, all prompts and efforts together.
pub(crate) struct Survival {
    /// Replies before, where there are two sides, and of the latest.
    pub(crate) replies: (Option<u64>, u64),
    /// What, and how many of both.
    pub(crate) rows: Vec<(&'static str, Option<u64>, u64)>,
}

/// Something that is counted.
type Counted = (&'static str, fn(&Cell) -> u64);

const SURVIVAL: [Counted; 9] = [
    ("reasoning present", |c| c.analysis.present),
    ("empty", |c| c.analysis.empty),
    ("missing", |c| c.analysis.missing),
    ("cut in it", |c| c.analysis.truncated),
    ("the reply ended", |c| c.ended),
    ("looped", |c| c.looped),
    ("was cut", |c| c.cut),
    ("well-formed", |c| c.valid),
    ("right, of those that reason", |c| c.right_present),
];

/// Counts what became of the reasoning.
pub(crate) fn survival(evaluation: &Evaluation) -> Survival {
    let pooled = |side: &Side| {
        let mut all = side.pooled("none").unwrap_or_default();
        if let Some(any) = side.pooled("any") {
            all.merge(&any);
        }
        all
    };
    let was = evaluation.after.as_ref().map(|_| pooled(&evaluation.before));
    let now = pooled(evaluation.latest());
    let rows = SURVIVAL.map(|(name, count)| (name, was.as_ref().map(count), count(&now)));
    Survival { replies: (was.as_ref().map(|was| was.n), now.n), rows: rows.to_vec() }
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
