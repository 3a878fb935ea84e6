//! The sentences that are printed first: a difference with its interval, or why none is claimed.

use crate::change::{Change, Claim, FEWEST, Measure, SpillOver};

/// The lines, in the order they are printed.
pub(crate) fn headline(changes: &[Change], spill_over: Option<&SpillOver>) -> Vec<String> {
    let of = |name: &str, measure, asked| {
        let found = changes.iter().find(|change| change.measure == measure && change.asked == asked);
        found.map(|change| sentence(name, change))
    };
    let spilled = spill_over.map(|spill| {
        format!(
            "nothing asked: {} of {} replies reason in another language than before",
            spill.changed_language, spill.judged
        )
    });
    [
        of("reasons in the language asked", Measure::Hit, true),
        of("right answers, a language asked", Measure::Right, true),
        of("right answers, none asked", Measure::Right, false),
        of("valid Harmony, a language asked", Measure::Valid, true),
        of("reasoning present, a language asked", Measure::Present, true),
        spilled,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// One measure in words.
fn sentence(name: &str, change: &Change) -> String {
    let head = format!("{name}: {:.1} -> {:.1} %", 100.0 * change.before, 100.0 * change.after);
    let n = change.questions;
    let interval = format!(
        "{} points, {} to {}, n = {n}",
        points(change.difference),
        points(change.low),
        points(change.high)
    );
    match change.claim {
        Claim::TooFew => {
            format!("{head} (n = {n}: too few questions to claim a difference; at least {FEWEST} are needed)")
        }
        Claim::NotShown => format!(
            "{head} ({interval}: no difference shown; less than {:.1} points cannot be seen with so few questions)",
            100.0 * (change.high - change.low) / 2.0
        ),
        Claim::Up | Claim::Down => format!("{head} ({interval})"),
    }
}

/// A difference of shares in points, with a sign that is as wide as its plus.
pub fn points(share: f64) -> String {
    format!("{:+.1}", 100.0 * share).replace('-', "−")
}
