//! Results of the model card.

use std::fmt::Write as _;

use descant_evaluate::{Cell, Evaluation, Side, name_of};

use super::escape::cell;
use crate::report::key::{Share, figures};
use crate::report::run_files::RunFiles;
use crate::report::sentences::{verdict, worse};
use crate::report::survival::{Survival, survival};

/// Figures with their intervals, languages, and what got worse.
pub(super) fn results(run: &RunFiles) -> String {
    let main = run.evaluations.as_ref().and_then(|all| Some((all.main()?, all.replies_each())));
    let Some((evaluation, replies)) = main else { return "Not measured.\n".to_owned() };
    let figures = figures(evaluation, replies);
    let mut text = format!("{}\n\n## Results\n\n", verdict(&figures));
    let efforts = evaluation.efforts.join(", ");
    let _ = writeln!(text, "Each question at {efforts} effort, one seed. In brackets: 95 % interval.\n");
    text += "| percent of replies | n | base | with the adapter |\n| :--- | ---: | ---: | ---: |\n";
    for figure in &figures {
        let shown = |share: &Share| format!("{} ({})", share.percent(), share.interval_text());
        let before = figure.before.as_ref().map_or_else(|| "-".into(), shown);
        let _ = writeln!(
            text,
            "| {} | {} | {before} | {} |",
            cell(figure.name),
            figure.after.of,
            shown(&figure.after)
        );
    }
    text += &lengths(evaluation);
    text += "\nIntervals are Wilson's and count questions, because the replies to one question are not \
             independent.\nThey do not cover another seed.\n\n";
    text += &by_language(evaluation);
    text += &reasoning(evaluation);
    let worse = worse(evaluation);
    if evaluation.after.is_some() {
        let worse = if worse.is_empty() { "nothing of what was measured".into() } else { worse.join("; ") };
        let _ = writeln!(text, "**What got worse:** {}.\n", cell(&worse));
    }
    text
}

/// Mean length of the reasoning by effort, as a last row of the results.
fn lengths(evaluation: &Evaluation) -> String {
    let mean = |side: &Side, effort: &String| {
        let mean = side.cell(effort, "any").and_then(Cell::mean_tokens);
        mean.map_or_else(|| "-".into(), |mean| format!("{mean:.1}"))
    };
    let row = |side: &Side| -> String {
        evaluation.efforts.iter().map(|effort| mean(side, effort)).collect::<Vec<_>>().join(" / ")
    };
    let Some(asked) = evaluation.latest().pooled("any") else { return String::new() };
    let before = evaluation.after.as_ref().map_or_else(|| "-".into(), |_| row(&evaluation.before));
    format!(
        "| mean length of the reasoning, a language asked: {}, tokens | {} | {before} | {} |\n",
        evaluation.efforts.join(" / "),
        asked.n,
        row(evaluation.latest())
    )
}

/// Languages that are listed at most.
const LANGUAGES: usize = 30;

/// Replies as asked, a row a language, by effort.
fn by_language(evaluation: &Evaluation) -> String {
    let latest = evaluation.latest();
    let mut codes: Vec<&str> = latest.cells.iter().map(|cell| cell.asked.as_str()).collect();
    codes.retain(|code| !matches!(*code, "none" | "any"));
    codes.sort_unstable();
    codes.dedup();
    if codes.is_empty() || codes.len() > LANGUAGES {
        return String::new();
    }
    let of = |side: &Side, code: &str| -> String {
        let cell = |effort: &String| {
            side.cell(effort, code).map_or_else(|| "-".into(), |cell| format!("{} of {}", cell.hit, cell.n))
        };
        evaluation.efforts.iter().map(cell).collect::<Vec<_>>().join(" / ")
    };
    let mut text = format!(
        "| as asked, at {} effort | base | with the adapter |\n| :--- | ---: | ---: |\n",
        evaluation.efforts.join(" / ")
    );
    for code in codes {
        let before = evaluation.after.as_ref().map_or_else(|| "-".into(), |_| of(&evaluation.before, code));
        let _ = writeln!(text, "| {} | {before} | {} |", cell(name_of(code)), of(latest, code));
    }
    text + "\n"
}

/// Whether the model still reasons, by counts.
fn reasoning(evaluation: &Evaluation) -> String {
    let Survival { replies: (Some(before), after), rows } = survival(evaluation) else {
        return String::new();
    };
    let mut text =
        format!("| replies, of {before} and {after} | base | with the adapter |\n| :--- | ---: | ---: |\n");
    for (name, was, now) in rows {
        let _ = writeln!(text, "| {name} | {} | {now} |", was.unwrap_or(0));
    }
    text + "\n"
}
