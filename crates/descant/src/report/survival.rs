//! What became of the reasoning and of the replies, in counts.

use descant_evaluate::{Cell, Evaluation, Side};

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
