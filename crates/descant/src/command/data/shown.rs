//! How a conversation and the figures of a data set look on a screen.
//!
//! A trained token is behind a bar, so that nothing is lost where there is no colour. Whatever in a text could
//! move the cursor, colour the screen or turn the writing round is shown as its number: a data set is not trusted with
//! a terminal.

use std::fmt::Write as _;

use clap::builder::styling::{AnsiColor, Style};
use descant_harmony::languages::LanguageShare;
use descant_harmony::mask::ClassCounts;
use descant_harmony::prepare::Example;
use descant_harmony::preview::{Lengths, runs};
use descant_harmony::{Result, TokenClass, Tokenizer};

use super::wrap::pieces;
use crate::command::account::{DataAccount, in_words};
use crate::words::{counted, grouped, visible};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const TRAINED: Style = AnsiColor::Green.on_default();
/// Columns of bar, label and a continued line's indent.
const MARGIN: usize = 16;
/// Narrower terminals are taken to be this wide.
const MIN_WIDTH: usize = 40;
/// Width of the longest bar.
const BAR: usize = 40;

/// A conversation, a block for each run of tokens that are all trained or all not. Lines longer than a terminal of
/// `width` columns continue below themselves, a little to the right.
pub(super) fn conversation(tokenizer: &Tokenizer, example: &Example, width: Option<usize>) -> Result<String> {
    let mut text = format!("{BOLD}row {}{BOLD:#}", example.row);
    if let Some(message) = example.message {
        let _ = write!(text, ", message {}", message + 1);
    }
    if let Some(language) = &example.reasoning_language {
        let _ = write!(text, ", reasoning language {}", visible(language));
    }
    let _ = writeln!(text, ": {} tokens, {} trained", example.ids.len(), example.mask.trained());
    for run in runs(tokenizer, &example.ids, &example.mask)? {
        let (bar, style) = if run.trained { ('▌', TRAINED) } else { (' ', Style::new()) };
        for (at, line) in visible(&run.text).split('\n').enumerate() {
            let mut label = if at == 0 { run.class.as_str() } else { "" };
            if label.is_empty() && line.is_empty() {
                let _ = writeln!(
                    text,
                    "{}",
                    if run.trained { format!("{style}{bar}{style:#}") } else { String::new() }
                );
                continue;
            }
            let pieces =
                width.map_or_else(|| vec![line], |width| pieces(line, width.max(MIN_WIDTH) - MARGIN));
            for (at, piece) in pieces.into_iter().enumerate() {
                let more = if at == 0 { "" } else { "  " };
                let _ = writeln!(
                    text,
                    "{style}{bar}{style:#} {DIM}{label:<11}{DIM:#} {style}{more}{piece}{style:#}"
                );
                label = "";
            }
        }
    }
    Ok(text)
}

/// How long conversations are.
pub(super) fn lengths(lengths: &Lengths) -> String {
    let count: u64 = lengths.buckets.iter().map(|(_, count)| *count).sum();
    if count == 1 {
        return format!("{BOLD}lengths{BOLD:#}     1 example of {} tokens\n", grouped(lengths.max as u64));
    }
    let mut text = format!(
        "{BOLD}lengths{BOLD:#}     {} examples of {} to {} tokens, half at most {}, 95 of 100 at most {}\n",
        grouped(count),
        grouped(lengths.min as u64),
        grouped(lengths.max as u64),
        grouped(lengths.median as u64),
        grouped(lengths.p95 as u64)
    );
    let most = lengths.buckets.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    // Empty buckets in front say nothing.
    for (end, count) in lengths.buckets.iter().skip_while(|(_, count)| *count == 0) {
        let bar = "█".repeat((*count as usize * BAR).div_ceil(most as usize));
        let end = format!("< {}", grouped(*end as u64));
        let _ = writeln!(text, "{end:>12}  {bar}{}{count}", if *count > 0 { " " } else { "" });
    }
    text
}

/// Tokens by channel, with the share of each in what is trained.
pub(super) fn channels(counts: &ClassCounts) -> String {
    let total = counts.total();
    let share = |trained: u64| 100.0 * trained as f64 / total.trained.max(1) as f64;
    let mut text = format!("{BOLD}tokens            all     trained   of trained{BOLD:#}\n");
    let mut line = |name: &str, tokens: u64, trained: u64| {
        let (tokens, grouped_trained) = (grouped(tokens), grouped(trained));
        let _ = writeln!(text, "{name:<11} {tokens:>9} {grouped_trained:>11} {:>10.1} %", share(trained));
    };
    for (class, count) in counts.iter() {
        let name = if class == TokenClass::Unchanneled { "no channel" } else { class.as_str() };
        line(name, count.tokens, count.trained);
    }
    line("together", total.tokens, total.trained);
    text
}

/// Reasoning languages, stated and found.
pub(super) fn languages(shares: &[LanguageShare]) -> String {
    let mut text = format!("{BOLD}reasoning    examples     trained   found to be in{BOLD:#}\n");
    for share in shares {
        let stated = visible(share.stated.as_deref().unwrap_or("not stated"));
        let mut found: Vec<(u64, &str)> =
            share.found.iter().map(|(name, count)| (*count, name.as_str())).collect();
        found.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        let rest = [(share.unsure, "unsure"), (share.without, "without reasoning")];
        let found: Vec<String> = found
            .into_iter()
            .chain(rest)
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{name} {count}"))
            .collect();
        let with_reasoning = share.examples - share.without;
        let looked_at = match share.judged {
            judged if judged < with_reasoning => format!(" (of {} checked)", grouped(judged)),
            _ => String::new(),
        };
        let trained = grouped(share.tokens.total().trained);
        let _ = writeln!(
            text,
            "{stated:<11} {:>9} {trained:>11}   {}{looked_at}",
            share.examples,
            found.join(", ")
        );
    }
    text
}

/// What was left out, by line; nothing where nothing was.
pub(super) fn left_out(data: &DataAccount) -> String {
    let (account, mut text) = (&data.account, String::new());
    for group in data.passed_over.groups() {
        let _ = writeln!(text, "{BOLD}passed over{BOLD:#} {}", visible(&group.to_string()));
    }
    for (count, what) in [
        (account.duplicates, "with the tokens of an earlier one"),
        (account.dropped, "longer than the limit"),
        (account.empty, "without a trained token"),
    ] {
        if count > 0 {
            let _ = writeln!(text, "{BOLD}left out{BOLD:#}   {} {what}", counted(count, "view"));
        }
    }
    for key in account.ignored.iter() {
        let label = if key.is_tag() { "as text" } else { "ignored" };
        let _ = writeln!(text, "{BOLD}{label}{BOLD:#}    {}", visible(&in_words(&key)));
    }
    let rejects = &account.rejects;
    if rejects.count > 0 {
        let _ = writeln!(text, "{BOLD}rejected{BOLD:#}   {}", counted(rejects.count, "row"));
        for reject in rejects.first.iter().take(20) {
            let _ = writeln!(text, "  line {}: {}", reject.number, visible(&reject.reason));
        }
        let more = rejects.count.saturating_sub(20);
        if more > 0 {
            let _ = writeln!(text, "  and {} more; --json has the first hundred", grouped(more));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_command_a_terminal_is_shown_as_its_number() {
        assert_eq!(
            visible("a\u{1b}[31mb\r\u{7}\nc\td\u{202e}é日"),
            "a\\u{1b}[31mb\\u{d}\\u{7}\nc\td\\u{202e}é日"
        );
    }

    #[test]
    fn bars_are_as_long_as_their_share() {
        let text = lengths(&Lengths::of([10, 10, 10, 10, 30], 4).unwrap());
        let text = anstream::adapter::strip_str(&text).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "lengths     5 examples of 10 to 30 tokens, half at most 10, 95 of 100 at most 30"
        );
        assert_eq!(lines[1], format!("        < 20  {} 4", "█".repeat(40)));
        assert_eq!(lines[2], "        < 30  0");
        assert_eq!(lines[3], format!("        < 40  {} 1", "█".repeat(10)));
    }
}
