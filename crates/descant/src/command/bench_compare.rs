//! `descant bench compare`: what got slower between two files of rows that `bench --json` printed.
//!
//! Rows are of one measurement where everything that was asked for is the same. Of several such rows in a file the
//! fastest counts: what disturbs a measurement only slows it down.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow};
use descant_harmony::read::{Columns, each_object};
use serde_json::{Map, Value};

use crate::cli::BenchCompare;
use crate::failure::Exit;
use crate::talk::Talk;
use crate::words::grouped;

/// What was asked for, as far as a row says it.
const ASKED: [&str; 13] = [
    "command",
    "checkpoint",
    "batch",
    "sequence",
    "accumulate",
    "prompts",
    "context",
    "new_tokens",
    "adapter",
    "experts",
    "kernels",
    "portable",
    "keep",
];
/// An operator that became slower by less than this share of all operators is not named.
const NOTICED: f64 = 0.002;

/// A row, as far as it is compared.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    rate: f64,
    memory: Option<f64>,
    digest: Option<String>,
    /// Milliseconds, by name.
    operators: BTreeMap<String, f64>,
}

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
            if before.digest == after.digest { "" } else { ", another adapter" }
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
    talk.data(format_args!("{slower} of {compared} measurements got slower by more than {} %", args.slower))?;
    Ok(if slower == 0 { Exit::Success } else { Exit::No })
}

/// The rows of a file by what was asked for.
fn read(path: &Path) -> Result<BTreeMap<String, Row>> {
    let mut lines = Vec::new();
    each_object(path, Columns::All, |line, object| {
        lines.push((line, object?));
        Ok(())
    })?;
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for (line, object) in lines {
        let (name, row) =
            parsed(&object).map_err(|what| anyhow!("{}, line {line}: {what}", path.display()))?;
        if rows.get(&name).is_none_or(|best| best.rate < row.rate) {
            rows.insert(name, row);
        }
    }
    Ok(rows)
}

/// What a row measured, and what it found.
fn parsed(object: &Map<String, Value>) -> Result<(String, Row), String> {
    let number = |key: &str| object.get(key).and_then(Value::as_f64);
    let rate = number("tokens_per_second").filter(|rate| *rate > 0.0);
    let rate = rate.ok_or("`tokens_per_second` is missing: a row that `bench --json` printed is expected")?;
    let said = ASKED.iter().filter_map(|key| {
        let text = match object.get(*key)? {
            Value::Null | Value::Bool(false) => return None,
            Value::Bool(true) => return Some((*key).to_owned()),
            Value::String(text) if text == "auto" || text == "none" => return None,
            Value::String(text) if *key == "kernels" => return Some(text.clone()),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some(format!("{key} {text}"))
    });
    // Older rows have their limit only in the arguments that whoever collected them wrote beside.
    let in_arguments = || {
        let mut words = object.get("args")?.as_str()?.split_whitespace();
        words.find(|word| *word == "--memory")?;
        crate::settings::bytes(words.next()?).ok()
    };
    let limit = object.get("memory_limit").and_then(Value::as_u64).or_else(in_arguments);
    let limit = limit.map(|bytes| format!("limit {bytes} bytes"));
    let name = said.chain(limit).collect::<Vec<_>>().join(", ");
    let mut operators = BTreeMap::new();
    for operator in object.get("operators").and_then(Value::as_array).into_iter().flatten() {
        let time = |key: &str, factor: f64| operator.get(key).and_then(Value::as_f64).map(|n| n * factor);
        let time = time("milliseconds", 1.0).or_else(|| time("microseconds", 1e-3));
        if let (Some(name), Some(time)) = (operator.get("name").and_then(Value::as_str), time) {
            operators.insert(name.to_owned(), time);
        }
    }
    let digest = ["adapter_sha256", "ids_sha256"].into_iter().find_map(|key| object.get(key)?.as_str());
    let row = Row { rate, memory: number("peak_memory_gib"), digest: digest.map(str::to_owned), operators };
    Ok((name, row))
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

    fn row(text: &str) -> (String, Row) {
        let Value::Object(object) = serde_json::from_str(text).unwrap() else { panic!("an object") };
        parsed(&object).unwrap()
    }

    #[test]
    fn rows_are_of_one_measurement_if_what_was_asked_for_is_the_same() {
        let (new, _) = row(r#"{"batch": 4, "sequence": 4096, "experts": true, "kernels": "auto",
            "memory_limit": 1000000000, "tokens_per_second": 5}"#);
        let (old, found) =
            row(r#"{"batch": 4, "sequence": 4096, "experts": true, "args": "--batch 4 --memory 1GB",
            "tokens_per_second": 6, "operators": [{"name": "norm", "microseconds": 1500.0}]}"#);
        assert_eq!(new, old);
        assert_eq!(new, "batch 4, sequence 4096, experts, limit 1000000000 bytes");
        assert!((found.operators["norm"] - 1.5).abs() < 1e-9);
        let (free, _) = row(r#"{"batch": 4, "sequence": 4096, "experts": true, "tokens_per_second": 5}"#);
        assert_ne!(free, old);
    }

    #[test]
    fn what_got_slower_is_named_largest_first_and_noise_is_not() {
        let row = |rate, memory, operators: &[(&str, f64)]| Row {
            rate,
            memory: Some(memory),
            digest: None,
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
