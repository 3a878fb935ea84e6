//! A row that `descant bench --json` printed, as far as `bench compare` looks at it: what was asked for, which names the
//! measurement, and what was found.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow};
use descant_harmony::read::{Columns, each_object};
use serde_json::{Map, Value};

/// What was asked for, as far as a row says it; `auto`, `none` and the numbers of the model itself, `bf16`, are what a
/// row that says nothing has.
const ASKED: [&str; 15] = [
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
    "experts_numbers",
    "kernels",
    "portable",
    "keep",
    "bus_gb_per_second",
];
/// Times of a start, each with its name: where a file has several rows of a measurement, its shortest.
pub(super) const STARTS: [(&str, &str); 2] =
    [("load_seconds", "loading"), ("first_step_seconds", "the first step")];
/// A row, as far as it is compared.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) rate: f64,
    pub(super) memory: Option<f64>,
    /// After how many steps, and what the adapter or the ids then are.
    pub(super) digest: Option<(usize, String)>,
    pub(super) card: Option<String>,
    /// Seconds of `STARTS`.
    pub(super) starts: [Option<f64>; 2],
    /// Milliseconds, by name.
    pub(super) operators: BTreeMap<String, f64>,
}

/// The rows of a file by what was asked for.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, Row>> {
    let mut lines = Vec::new();
    each_object(path, Columns::All, |line, object| {
        lines.push((line, object?));
        Ok(())
    })?;
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for (line, object) in lines {
        let (name, row) =
            parsed(&object).map_err(|what| anyhow!("{}, line {line}: {what}", path.display()))?;
        let Some(best) = rows.get_mut(&name) else {
            rows.insert(name, row);
            continue;
        };
        let starts = [0, 1].map(|i| [best.starts[i], row.starts[i]].into_iter().flatten().reduce(f64::min));
        if best.rate < row.rate {
            *best = row;
        }
        best.starts = starts;
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
            Value::String(text) if ["auto", "none", "bf16"].contains(&text.as_str()) => return None,
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
    // Weights as published are what older rows have, which do not say it.
    let weights = object.get("weights").and_then(Value::as_str).filter(|formats| formats.contains("NF4"));
    let weights = weights.map(|_| "weights in NF4".to_owned());
    let cards = object.get("cards").and_then(|cards| cards.get("cards")).and_then(Value::as_u64);
    let cards = cards.map(|cards| format!("beside {cards} cards"));
    let name = said.chain(limit).chain(weights).chain(cards).collect::<Vec<_>>().join(", ");
    let mut operators = BTreeMap::new();
    for operator in object.get("operators").and_then(Value::as_array).into_iter().flatten() {
        let time = |key: &str, factor: f64| operator.get(key).and_then(Value::as_f64).map(|n| n * factor);
        let time = time("milliseconds", 1.0).or_else(|| time("microseconds", 1e-3));
        if let (Some(name), Some(time)) = (operator.get("name").and_then(Value::as_str), time) {
            operators.insert(name.to_owned(), time);
        }
    }
    let digest = ["adapter_sha256", "ids_sha256"].into_iter().find_map(|key| object.get(key)?.as_str());
    let steps = object.get("losses").and_then(Value::as_array).map_or(0, Vec::len);
    let row = Row {
        rate,
        memory: number("peak_memory_gib"),
        digest: digest.map(|digest| (steps, digest.to_owned())),
        card: object.get("card").and_then(Value::as_str).map(str::to_owned),
        starts: STARTS.map(|(key, _)| number(key)),
        operators,
    };
    Ok((name, row))
}

/// A row for a test, written as JSON.
#[cfg(test)]
pub(super) fn of_text(text: &str) -> (String, Row) {
    let Value::Object(object) = serde_json::from_str(text).unwrap() else { panic!("an object") };
    parsed(&object).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_of_one_measurement_if_what_was_asked_for_is_the_same() {
        let (new, _) = of_text(
            r#"{"batch": 4, "sequence": 4096, "experts": true, "kernels": "auto",
            "memory_limit": 1000000000, "tokens_per_second": 5}"#,
        );
        let (old, found) = of_text(
            r#"{"batch": 4, "sequence": 4096, "experts": true, "args": "--batch 4 --memory 1GB",
            "tokens_per_second": 6, "operators": [{"name": "norm", "microseconds": 1500.0}]}"#,
        );
        assert_eq!(new, old);
        assert_eq!(new, "batch 4, sequence 4096, experts, limit 1000000000 bytes");
        assert!((found.operators["norm"] - 1.5).abs() < 1e-9);
        let (free, _) = of_text(r#"{"batch": 4, "sequence": 4096, "experts": true, "tokens_per_second": 5}"#);
        assert_ne!(free, old);
    }

    #[test]
    fn another_form_packing_bus_or_number_of_cards_is_another_measurement() {
        let name = |more: &str| {
            of_text(&format!(r#"{{"batch": 4, "sequence": 4096, {more} "tokens_per_second": 5}}"#)).0
        };
        let plain = name("");
        assert_eq!(plain, name(r#""experts_numbers": "bf16", "weights": "lm_head BF16; down_proj MXFP4","#));
        assert_eq!(plain, name(r#""card": "NVIDIA H200", "cards": null, "bus_gb_per_second": null,"#));
        let others = [
            r#""experts_numbers": "fp8","#,
            r#""weights": "lm_head BF16; down_proj NF4","#,
            r#""cards": {"cards": 2},"#,
            r#""bus_gb_per_second": 25.0,"#,
        ];
        let mut names: Vec<_> = others.map(name).into_iter().chain([plain]).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), others.len() + 1, "{names:?}");
    }
}
