//! Before and after, paired over questions: differences with intervals, and the words that they allow.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cell::{Cell, Verdicts};
use crate::judge::Verdict;
use crate::reading::Analysis;
use crate::samples::Key;
use crate::statistics::{Interval, Pairs, bootstrap, sum};

/// Fewest questions that a difference is claimed for.
pub const FEWEST: u64 = 20;
/// Ends of intervals nearer to 0 than this are 0.
const ZERO: f64 = 1e-9;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Reasoning in the language asked.
    Hit,
    /// Right answers.
    Right,
    /// Valid Harmony.
    Valid,
    /// Replies that ended.
    Ended,
    /// Reasoning that is there.
    Present,
    /// Answers in the language that they should have.
    AnswerHit,
}

impl Measure {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Hit, Self::Right, Self::Valid, Self::Ended, Self::Present, Self::AnswerHit];

    fn of(self, verdict: &Verdict) -> Option<bool> {
        match self {
            Self::Hit => Some(verdict.hit),
            Self::Right => verdict.right,
            Self::Valid => Some(verdict.harmony == "valid"),
            Self::Ended => Some(verdict.end == crate::reading::End::Ended),
            Self::Present => Some(verdict.analysis == Analysis::Present),
            Self::AnswerHit => verdict.answer_hit,
        }
    }
}

/// What a difference allows to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// More than before.
    Up,
    /// Less than before.
    Down,
    /// No difference is shown.
    NotShown,
    /// Too few questions to say.
    TooFew,
}

impl Claim {
    pub(crate) fn of(n: u64, interval: Interval) -> Self {
        match interval {
            _ if n < FEWEST => Self::TooFew,
            Interval { low, .. } if low > ZERO => Self::Up,
            Interval { high, .. } if high < -ZERO => Self::Down,
            _ => Self::NotShown,
        }
    }
}

/// How an interval was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Newcombe's, of one reply a question.
    Newcombe,
    /// A bootstrap over questions.
    Bootstrap,
}

/// A measure before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What is compared.
    pub measure: Measure,
    /// Of prompts that asked for a language, or of those that did not.
    pub asked: bool,
    /// Questions that both sides answered.
    pub questions: u64,
    /// Pairs of replies to them.
    pub replies: u64,
    /// Share before, the mean over questions.
    pub before: f64,
    /// Share after.
    pub after: f64,
    /// How the interval was made.
    pub method: Method,
    /// After less before.
    pub difference: f64,
    /// Low end of its 95 % interval.
    pub low: f64,
    /// High end.
    pub high: f64,
    /// Exact p of McNemar's test, where each question has one reply.
    pub mcnemar_p: Option<f64>,
    /// What may be said.
    pub claim: Claim,
    /// Ids of questions that it is lower for.
    pub lost: Vec<String>,
    /// Ids of questions that it is higher for.
    pub gained: Vec<String>,
}

/// The change of a measure; at one effort, or over all of them. `None` where no question has it on both sides.
pub fn change(
    before: &Verdicts,
    after: &Verdicts,
    asked: bool,
    measure: Measure,
    effort: Option<&str>,
) -> Option<Change> {
    let mut by: BTreeMap<&str, Vec<(bool, bool)>> = BTreeMap::new();
    for (key, was) in before.iter().filter(|(key, _)| key.asked == asked) {
        if effort.is_some_and(|effort| key.effort != effort) {
            continue;
        }
        let now = after.get(key).and_then(|now| measure.of(now));
        if let (Some(was), Some(now)) = (measure.of(was), now) {
            by.entry(&key.question).or_default().push((was, now));
        }
    }
    let n = by.len() as u64;
    if n == 0 {
        return None;
    }
    let share = |pairs: &[(bool, bool)], which: fn(&(bool, bool)) -> bool| {
        pairs.iter().filter(|pair| which(pair)).count() as f64 / pairs.len() as f64
    };
    let mean =
        |which: fn(&(bool, bool)) -> bool| sum(by.values().map(|pairs| share(pairs, which))) / n as f64;
    let single = by.values().all(|pairs| pairs.len() == 1);
    let (method, difference, interval, mcnemar_p) = if single {
        let mut pairs = Pairs::default();
        for (was, now) in by.values().flatten() {
            *match (was, now) {
                (true, true) => &mut pairs.both,
                (false, true) => &mut pairs.gained,
                (true, false) => &mut pairs.lost,
                (false, false) => &mut pairs.neither,
            } += 1;
        }
        let found = pairs.difference();
        (Method::Newcombe, found.difference, found.interval, Some(found.mcnemar_p))
    } else {
        let differences: Vec<f64> = by.values().map(|pairs| net(pairs) as f64 / pairs.len() as f64).collect();
        let difference = sum(differences.iter().copied()) / n as f64;
        (Method::Bootstrap, difference, widened(difference, bootstrap(&differences), n), None)
    };
    let ids = |wanted: fn(i64) -> bool| {
        by.iter().filter(|(_, pairs)| wanted(net(pairs))).map(|(id, _)| (*id).to_owned()).collect()
    };
    Some(Change {
        measure,
        asked,
        questions: n,
        replies: by.values().map(|pairs| pairs.len() as u64).sum(),
        before: mean(|pair| pair.0),
        after: mean(|pair| pair.1),
        method,
        difference,
        low: interval.low,
        high: interval.high,
        mcnemar_p,
        claim: Claim::of(n, interval),
        lost: ids(|net| net < 0),
        gained: ids(|net| net > 0),
    })
}

/// Replies that gained less those that lost.
fn net(pairs: &[(bool, bool)]) -> i64 {
    pairs.iter().map(|(was, now)| i64::from(*now) - i64::from(*was)).sum()
}

/// Equal values have a bootstrap without width: never less than the rule of three.
fn widened(difference: f64, Interval { low, high }: Interval, n: u64) -> Interval {
    let three = 3.0 / n as f64;
    Interval { low: low.min(difference - three).max(-1.0), high: high.max(difference + three).min(1.0) }
}

/// What changed where nothing was asked, and nothing should have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpillOver {
    /// Replies on both sides.
    pub replies: u64,
    /// Those whose reasoning has a language on both sides.
    pub judged: u64,
    /// Of them, those that reason in another one.
    pub changed_language: u64,
    /// Which one.
    pub changed_to: BTreeMap<String, u64>,
    /// Right before, not after.
    pub right_lost: u64,
    /// Right after, not before.
    pub right_gained: u64,
    /// Valid before, not after.
    pub valid_lost: u64,
    /// Reasoned before, not after.
    pub reasoning_lost: u64,
    /// Tokens of reasoning after, for each before.
    pub tokens_ratio: Option<f64>,
}

/// Compares the replies to prompts that asked for nothing.
pub(crate) fn spill_over(before: &Verdicts, after: &Verdicts) -> Option<SpillOver> {
    let pairs: Vec<(&Verdict, &Verdict)> = before
        .iter()
        .filter(|(key, _)| !key.asked)
        .filter_map(|(key, was)| Some((was, after.get(key)?)))
        .collect();
    if pairs.is_empty() {
        return None;
    }
    let count = |wanted: &dyn Fn(&Verdict, &Verdict) -> bool| {
        pairs.iter().filter(|(was, now)| wanted(was, now)).count() as u64
    };
    let languages = |was: &Verdict, now: &Verdict| Some((was.reasoning_language?, now.reasoning_language?));
    let changed: Vec<&Verdict> = pairs
        .iter()
        .filter(|(was, now)| languages(was, now).is_some_and(|(was, now)| was != now))
        .map(|(_, now)| *now)
        .collect();
    let is_right = |verdict: &Verdict| verdict.right == Some(true);
    let is_valid = |verdict: &Verdict| verdict.harmony == "valid";
    let is_present = |verdict: &Verdict| verdict.analysis == Analysis::Present;
    let both = || pairs.iter().filter(|(was, now)| was.reasoned() && now.reasoned());
    let tokens_before: usize = both().map(|(was, _)| was.analysis_tokens).sum();
    let tokens_after: usize = both().map(|(_, now)| now.analysis_tokens).sum();
    Some(SpillOver {
        replies: pairs.len() as u64,
        judged: count(&|was, now| languages(was, now).is_some()),
        changed_language: changed.len() as u64,
        changed_to: Cell::count("", "", changed).found,
        right_lost: count(&|was, now| is_right(was) && !is_right(now)),
        right_gained: count(&|was, now| is_right(now) && !is_right(was)),
        valid_lost: count(&|was, now| is_valid(was) && !is_valid(now)),
        reasoning_lost: count(&|was, now| is_present(was) && !is_present(now)),
        tokens_ratio: (tokens_before > 0).then(|| tokens_after as f64 / tokens_before as f64),
    })
}

/// Whether more effort is longer reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Monotone {
    /// Each step is shown to be longer.
    Yes,
    /// A step is not longer.
    No,
    /// Longer, and not shown.
    NotShown,
}

/// Length of the reasoning by effort.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EffortLengths {
    /// Of prompts that asked for a language, or of those that did not.
    pub asked: bool,
    /// Mean of the means of the questions, by effort.
    pub mean_tokens: BTreeMap<String, f64>,
    /// Whether more effort is longer.
    pub monotone: Monotone,
}

/// Lengths by effort; `None` with fewer than two efforts that reasoned.
pub(crate) fn effort_lengths(verdicts: &Verdicts, asked: bool, efforts: &[String]) -> Option<EffortLengths> {
    let by_question = |effort: &str| {
        let mut by: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let belongs = |(key, verdict): &(&Key, &Verdict)| {
            key.asked == asked && key.effort == effort && verdict.reasoned()
        };
        for (key, verdict) in verdicts.iter().filter(belongs) {
            by.entry(&key.question).or_default().push(verdict.analysis_tokens as f64);
        }
        let mean = |tokens: Vec<f64>| sum(tokens.iter().copied()) / tokens.len() as f64;
        by.into_iter().map(|(id, tokens)| (id, mean(tokens))).collect::<BTreeMap<&str, f64>>()
    };
    let ladder: Vec<(&str, BTreeMap<&str, f64>)> = ["low", "medium", "high"]
        .into_iter()
        .filter(|effort| efforts.iter().any(|own| own == effort))
        .map(|effort| (effort, by_question(effort)))
        .filter(|(_, by)| !by.is_empty())
        .collect();
    let mean = |by: &BTreeMap<&str, f64>| sum(by.values().copied()) / by.len() as f64;
    let step = |pair: &[(&str, BTreeMap<&str, f64>)]| {
        let (less, more) = (&pair[0].1, &pair[1].1);
        let differences: Vec<f64> =
            less.iter().filter_map(|(id, tokens)| more.get(id).map(|longer| longer - tokens)).collect();
        if !differences.is_empty() && bootstrap(&differences).low > ZERO {
            Monotone::Yes
        } else if mean(more) <= mean(less) {
            Monotone::No
        } else {
            Monotone::NotShown
        }
    };
    let steps: Vec<Monotone> = ladder.windows(2).map(step).collect();
    let worst = [Monotone::No, Monotone::NotShown, Monotone::Yes];
    let monotone = worst.into_iter().find(|verdict| steps.contains(verdict))?;
    let mean_tokens = ladder.iter().map(|(effort, by)| ((*effort).to_owned(), mean(by))).collect();
    Some(EffortLengths { asked, mean_tokens, monotone })
}
