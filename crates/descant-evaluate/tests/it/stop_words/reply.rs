//! One generated reply, taken apart and judged.
//!
//! Ports of `parse` (`generate.py`), `chain_ok` and the body of `score` (`finetune_check.py`). A reply is the text
//! after the prompt's `<|start|>assistant`, special tokens shown.

use super::digits;
use super::language::{Language, detect};

const ANALYSIS: &str = "<|channel|>analysis<|message|>";
const FINAL: &str = "<|end|><|start|>assistant<|channel|>final<|message|>";
const RETURN: &str = "<|return|>";

/// What a reply is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected<'a> {
    /// The language the analysis should be in.
    pub(super) language: Language,
    /// A right final; its last number is the answer.
    pub(super) answer: &'a str,
}

/// What was found in one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not one analysis followed by one final.
    Invalid,
    /// Valid Harmony.
    Valid {
        /// Language of the analysis; `None` when no word of it is known.
        found: Option<Language>,
        /// The analysis is in the expected language.
        hit: bool,
        /// The final is English and its last number is the answer's.
        right: bool,
        /// Every step that the analysis writes out is true.
        true_steps: bool,
        /// Length of the analysis in tokens.
        analysis_tokens: usize,
    },
}

/// Judges one reply; `count_tokens` gives the length of a text in the model's own tokens.
pub(super) fn judge(reply: &str, expected: Expected<'_>, count_tokens: &dyn Fn(&str) -> usize) -> Verdict {
    let Some((analysis, answer)) = parse(reply) else { return Verdict::Invalid };
    let found = detect(analysis);
    Verdict::Valid {
        found,
        hit: found == Some(expected.language),
        right: digits::last_run(answer) == digits::last_run(expected.answer)
            && detect(answer) == Some(Language::English),
        true_steps: steps_hold(analysis),
        analysis_tokens: count_tokens(analysis),
    }
}

/// Analysis and final of a reply, or `None` when it is anything but one of each, closed by `<|return|>`.
pub(super) fn parse(reply: &str) -> Option<(&str, &str)> {
    let (analysis, answer) = reply.strip_prefix(ANALYSIS)?.strip_suffix(RETURN)?.split_once(FINAL)?;
    // A second `FINAL` inside the answer would contain this too.
    (!analysis.contains("<|") && !answer.contains("<|")).then_some((analysis, answer))
}

/// Whether every `a op b = c` in `text` is true; a text without any holds.
///
/// `op` is one of `+ - × /`. A number that follows a digit or `x` is not a left side. Numbers beyond 38 digits make a
/// step count as false.
pub(super) fn steps_hold(text: &str) -> bool {
    let (mut at, mut before) = (0, None);
    while let Some(c) = text[at..].chars().next() {
        let run = digits::leading(&text[at..]);
        if run == 0 || before == Some('x') {
            // Digits after an `x` are passed over whole: none of them may begin a step.
            at += run.max(c.len_utf8());
            before = text[..at].chars().next_back();
            continue;
        }
        match step(&text[at..]) {
            Some(step) if !step.holds => return false,
            Some(step) => at += step.len,
            None => at += run,
        }
        before = text[..at].chars().next_back();
    }
    true
}

/// A written step and whether it is true.
struct Step {
    len: usize,
    holds: bool,
}

/// The step that `text` begins with.
fn step(text: &str) -> Option<Step> {
    let (a, rest) = number(text)?;
    let rest = rest.strip_prefix(' ')?;
    let op = rest.chars().next().filter(|c| "+-×/".contains(*c))?;
    let (b, rest) = number(rest[op.len_utf8()..].strip_prefix(' ')?)?;
    let (c, rest) = number(rest.strip_prefix(" = ")?)?;
    let holds = match (digits::value(a), digits::value(b), digits::value(c)) {
        (Some(a), Some(b), Some(c)) => match op {
            '+' => a.checked_add(b) == Some(c),
            '-' => a.checked_sub(b) == Some(c),
            '×' => a.checked_mul(b) == Some(c),
            _ => b != 0 && b.checked_mul(c) == Some(a),
        },
        _ => false,
    };
    Some(Step { len: text.len() - rest.len(), holds })
}

/// Splits the digits off that `text` begins with.
fn number(text: &str) -> Option<(&str, &str)> {
    let run = digits::leading(text);
    (run > 0).then(|| text.split_at(run))
}
