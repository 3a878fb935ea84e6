//! Which questions are asked: those of the settings, and few enough that asking takes less time than training.

use anyhow::{Context as _, Result};
use descant_evaluate::{Suite, check_ids};

use crate::failure::Hinted;
use crate::settings::{Evaluate, Settings};

/// What a token of a reply costs, in tokens of a training step: measured 20 on an H100 with a 20b (1,150 replied tokens
/// a second in batches of 32, 20,000 trained), and less on the CPU.
const REPLIED_TOKEN: u64 = 20;
/// Share of the longest reply that replies have on the average: some stop early, and some at the limit.
const LENGTH: f64 = 0.5;
/// Fewest questions of a file.
const FEWEST: usize = 4;

/// How many questions of each file can be asked twice, before and after, in less time than so many tokens are trained.
fn quick(evaluate: &Evaluate, training: u64, files: usize) -> usize {
    let kinds = if evaluate.plain { 2 } else { 1 };
    let of_question = evaluate.efforts.len() * evaluate.replies as usize * kinds;
    let tokens = 2.0 * of_question as f64 * LENGTH * evaluate.max_new_tokens as f64;
    let questions = training as f64 / REPLIED_TOKEN as f64 / tokens.max(1.0);
    (questions as usize / files.max(1)).max(FEWEST)
}

/// The questions of the settings, and how many there are, asked or not; `None` where there are none. `shipped` is in
/// place of the held-out file.
pub(super) fn suites(
    settings: &Settings,
    tag: Option<&str>,
    training: Option<u64>,
    shipped: Option<&str>,
) -> Result<Option<(Vec<Suite>, usize)>> {
    let evaluate = &settings.evaluate;
    let mut suites = Vec::new();
    if let Some(path) = &settings.data.held_out {
        let suite = match shipped {
            Some(text) => Suite::from_text("held-out", text),
            None => Suite::from_file(path),
        };
        suites.push(
            suite
                .map_err(|error| Hinted::new(error, "leave data.held_out out to train without measuring"))?,
        );
    }
    for name in &evaluate.suites {
        suites.push(Suite::load(name).with_context(|| format!("evaluate.suites names {name}"))?);
    }
    if let Some(tag) = tag {
        suites = suites.into_iter().map(|suite| suite.tagged(tag)).collect::<Result<_, _>>()?;
    }
    if suites.is_empty() {
        return Ok(None);
    }
    let there = suites.iter().map(|suite| suite.questions.len()).sum();
    let quick = training.filter(|_| evaluate.quick).map(|tokens| quick(evaluate, tokens, suites.len()));
    for suite in &mut suites {
        suite.questions.truncate(evaluate.prompts.or(quick).unwrap_or(usize::MAX));
    }
    check_ids(&suites)?;
    Ok(Some((suites, there)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_measures_take_less_time_than_training() {
        let mut evaluate = Evaluate { max_new_tokens: 1024, ..Evaluate::default() };
        let seconds_of = |evaluate: &Evaluate, questions: usize, files: usize| {
            let replies = questions * files * evaluate.efforts.len() * if evaluate.plain { 2 } else { 1 };
            2.0 * replies as f64 * LENGTH * evaluate.max_new_tokens as f64 * REPLIED_TOKEN as f64
        };
        // Sixty steps of the tutorial: about a million tokens.
        for (training, files) in [(1_000_000, 2), (10_000_000, 2), (10_000_000, 1), (40_000_000, 3)] {
            let questions = quick(&evaluate, training, files);
            assert!(questions >= FEWEST);
            let used = seconds_of(&evaluate, questions, files);
            assert!(used <= training as f64 && seconds_of(&evaluate, questions + 1, files) > training as f64);
        }
        // However short the training, some are asked.
        assert_eq!(quick(&evaluate, 10, 2), FEWEST);
        evaluate.plain = false;
        let plain = Evaluate { plain: true, ..evaluate.clone() };
        assert!(quick(&evaluate, 10_000_000, 1) >= 2 * quick(&plain, 10_000_000, 1));
    }
}
