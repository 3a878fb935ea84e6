//! `descant bench compare`: what got slower between two files of rows that `bench --json` printed.
//!
//! Rows are of one measurement where everything that was asked for is the same. Of several such rows in a file the
//! fastest counts: what disturbs a measurement only slows it down.

use std::fmt::Write as _;

use anyhow::{Result, anyhow};

use super::bench_row::{Row, STARTS, read};
use crate::cli::BenchCompare;
use crate::failure::Exit;
use crate::talk::Talk;
use crate::words::grouped;

/// A start that became slower by less than this many seconds is not named: disks and caches make more.
const NOTICED_START: f64 = 0.5;
/// An operator that became slower by less than this share of all operators is not named.
const NOTICED: f64 = 0.002;

/// Compares, prints, and says by its status whether anything got slower.
pub(super) fn run(args: &BenchCompare, talk: Talk) -> Result<Exit> {
    let (old, new) = (read(&args.old)?, read(&args.new)?);
    let share = args.slower / 100.0;
    let (mut compared, mut slower) = (0, 0);
    for (name, after) in &new {
        let Some(before) = old.get(name) else { continue };
        compared += 1;
        let found = changes(before, after, share);
        slower += usize::from(!found.is_empty());
        talk.data(format_args!(
            "{name}: {} to {} tok/s ({}){}",
            grouped(before.rate as u64),
            grouped(after.rate as u64),
            percent(after.rate / before.rate),
            otherwise(before, after)
        ))?;
        for change in found {
            talk.data(format_args!("  slower: {change}"))?;
        }
    }
    if compared == 0 {
        let (old, new) = (args.old.display(), args.new.display());
        return Err(anyhow!("no measurement is in both files: {old} and {new}"));
    }
    for (file, rows, others) in [(&args.old, &old, &new), (&args.new, &new, &old)] {
        for name in rows.keys().filter(|name| !others.contains_key(*name)) {
            talk.data(format_args!("only in {}: {name}", file.display()))?;
        }
    }
    talk.data(format_args!(
        "in {slower} of {compared} measurements something got slower by more than {} %",
        args.slower
    ))?;
    Ok(if slower == 0 { Exit::Success } else { Exit::No })
}

/// What else is not as before, to be read beside the rates.
fn otherwise(before: &Row, after: &Row) -> String {
    let mut words = String::new();
    if let (Some((steps, old)), Some((same, new))) = (&before.digest, &after.digest)
        && steps == same
        && old != new
    {
        words += ", other results";
    }
    if let (Some(old), Some(new)) = (&before.card, &after.card)
        && old != new
    {
        let _ = write!(words, ", on another card ({old}, then {new})");
    }
    words
}

/// What is worse by more than this share.
fn changes(before: &Row, after: &Row, share: f64) -> Vec<String> {
    let mut found = Vec::new();
    if after.rate < before.rate * (1.0 - share) {
        found.push(format!("the whole ({})", percent(after.rate / before.rate)));
    }
    if let (Some(before), Some(after)) = (before.memory, after.memory)
        && after > before * (1.0 + share)
    {
        found.push(format!("more memory: {before:.2} to {after:.2} GiB"));
    }
    for ((_, what), times) in STARTS.iter().zip(before.starts.iter().zip(after.starts)) {
        if let (Some(before), Some(after)) = times
            && after > before * (1.0 + share)
            && after > before + NOTICED_START
        {
            found.push(format!("{what}: {before:.2} to {after:.2} s"));
        }
    }
    let all: f64 = before.operators.values().sum();
    let mut operators: Vec<(f64, String)> = after
        .operators
        .iter()
        .filter_map(|(name, after)| {
            let before = before.operators.get(name)?;
            let more = after - before;
            let is_slower = *after > before * (1.0 + share) && more > all * NOTICED;
            is_slower.then(|| (more, format!("{name}: {before:.3} to {after:.3} ms")))
        })
        .collect();
    operators.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.extend(operators.into_iter().map(|(_, words)| words));
    found
}

fn percent(ratio: f64) -> String {
    format!("{:+.1} %", 100.0 * (ratio - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::bench_row::of_text;

    #[test]
    fn results_are_compared_after_the_same_steps_and_the_shortest_start_counts() {
        let of = |digest: &str, losses: &str, rate: f64, first: f64| {
            format!(
                r#"{{"batch": 1, "adapter_sha256": "{digest}", "losses": {losses}, "card": "A",
                "first_step_seconds": {first}, "tokens_per_second": {rate}}}"#
            )
        };
        let found = |text: &str| of_text(text).1;
        let one = found(&of("a", "[1, 2]", 5.0, 0.5));
        assert_eq!(otherwise(&one, &found(&of("b", "[1, 2]", 5.0, 0.5))), ", other results");
        assert_eq!(otherwise(&one, &found(&of("b", "[1, 2, 3]", 5.0, 0.5))), "");
        assert_eq!(otherwise(&one, &one), "");
        let elsewhere = Row { card: Some("B".to_owned()), ..one.clone() };
        assert_eq!(otherwise(&one, &elsewhere), ", on another card (A, then B)");
        let file = tempfile::NamedTempFile::with_suffix(".jsonl").unwrap();
        let rows = [of("a", "[]", 6.0, 4.0), of("a", "[]", 5.0, 0.5)].map(|row| row.replace('\n', " "));
        descant_files::write_atomic(file.path(), rows.join("\n").as_bytes()).unwrap();
        let best = read(file.path()).unwrap().into_values().next().unwrap();
        assert_eq!((best.rate, best.starts), (6.0, [None, Some(0.5)]));
        let slow = Row { starts: [None, Some(1.2)], ..best.clone() };
        assert_eq!(changes(&best, &slow, 0.03), ["the first step: 0.50 to 1.20 s"]);
        assert_eq!(changes(&best, &Row { starts: [None, Some(0.9)], ..best.clone() }, 0.03), [""; 0]);
    }

    #[test]
    fn what_got_slower_is_named_largest_first_and_noise_is_not() {
        let row = |rate, memory, operators: &[(&str, f64)]| Row {
            rate,
            memory: Some(memory),
            digest: None,
            card: None,
            starts: [Some(1.0), Some(0.5)],
            operators: operators.iter().map(|(name, time)| ((*name).to_owned(), *time)).collect(),
        };
        let before = row(100.0, 10.0, &[("experts", 100.0), ("norm", 10.0), ("sort", 0.1), ("gone", 5.0)]);
        let after = row(95.0, 11.0, &[("experts", 101.0), ("norm", 12.0), ("sort", 0.2), ("new", 5.0)]);
        let expected = ["the whole (-5.0 %)", "more memory: 10.00 to 11.00 GiB", "norm: 10.000 to 12.000 ms"];
        assert_eq!(changes(&before, &after, 0.03), expected);
        assert_eq!(changes(&before, &after, 0.5), [""; 0]);
        // The control: the other way round nothing got slower but what is gone.
        assert_eq!(changes(&after, &before, 0.03), [""; 0]);
        assert_eq!(
            changes(&before, &row(100.0, 10.0, &[("experts", 110.0), ("norm", 14.0)]), 0.03),
            ["experts: 100.000 to 110.000 ms", "norm: 10.000 to 14.000 ms"]
        );
    }
}
