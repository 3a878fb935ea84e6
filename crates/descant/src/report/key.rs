//! The five figures that a reader wants.
//!
//! Terminal, report and card take them from here, so that they cannot differ; `sentences.rs` says them in words.
//! Intervals are Wilson's at 95 % and count questions, because replies to one question are not independent. Neither
//! covers another seed.

use std::collections::BTreeSet;

use descant_evaluate::statistics::{Interval, wilson_of};
use descant_evaluate::{Cell, Evaluation, Side};

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
    let efforts: BTreeSet<&str> = side.cells.iter().map(|cell| cell.effort.as_str()).collect();
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
