//! What went in, what was trained, how to do it again, and what the page cannot know.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::head::{main_evaluation, share_of};
use super::markup::{Section, escape, grouped, table};
use crate::report::run_files::RunFiles;

/// Columns of the histogram of lengths at most.
const BUCKETS: usize = 24;

/// Tokens by channel, languages, lengths, what was left out.
pub(super) fn data(run: &RunFiles) -> Option<Section> {
    let examples = run.data["examples"].as_i64()?;
    let account = &run.data["account"];
    let mut matter = String::new();
    let mut rows = Vec::new();
    let (mut tokens, mut trained) = (0, 0);
    for (channel, of) in account["tokens"].as_object().into_iter().flatten() {
        let (all, some) = (of["tokens"].as_u64().unwrap_or(0), of["trained"].as_u64().unwrap_or(0));
        if all > 0 {
            rows.push(vec![escape(channel), grouped(all as i64), grouped(some as i64), share_of(some, all)]);
            (tokens, trained) = (tokens + all, trained + some);
        }
    }
    rows.push(vec![
        "in all".into(),
        grouped(tokens as i64),
        grouped(trained as i64),
        share_of(trained, tokens),
    ]);
    let titles = [("channel", ""), ("tokens", "r"), ("trained", "r"), ("percent", "r")];
    matter += &table("Tokens by channel", &titles, &rows, true);
    matter += &stated(run);
    matter += "<div class=\"two\">\n";
    matter += &lengths(run);
    let left_out = [
        ("bad rows", account["rejects"]["count"].as_u64()),
        ("duplicates", account["duplicates"].as_u64()),
        ("longer than the limit, left out", account["dropped"].as_u64()),
        ("longer than the limit, cut at a message", account["cut"].as_u64()),
        ("without anything trained", account["empty"].as_u64()),
    ];
    let rows: Vec<Vec<String>> = left_out
        .into_iter()
        .filter_map(|(why, count)| Some(vec![why.to_owned(), grouped(count? as i64)]))
        .collect();
    matter += &table(
        "Left out or changed <span class=\"unit\">rows</span>",
        &[("why", ""), ("rows", "r")],
        &rows,
        false,
    );
    matter += "</div>\n";
    let rail = format!("{} conversations.", grouped(examples));
    Some(Section { id: "data", title: "Data", rail, matter })
}

fn stated(run: &RunFiles) -> String {
    let mut rows = Vec::new();
    for language in run.data["languages"].as_array().into_iter().flatten() {
        let stated = language["stated"].as_str().unwrap_or("not stated");
        let examples = language["examples"].as_u64().unwrap_or(0);
        let found = language["found"].as_object();
        let as_stated = found.and_then(|found| found.get(stated)?.as_u64()).unwrap_or(0);
        let all: u64 = found.into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
        let unsure = language["unsure"].as_u64().unwrap_or(0);
        let row = [examples, as_stated, all - as_stated.min(all), unsure].map(|count| grouped(count as i64));
        rows.push([vec![escape(stated)], row.to_vec()].concat());
    }
    if rows.is_empty() {
        return String::new();
    }
    let titles = [
        ("stated", ""),
        ("examples", "r"),
        ("found as stated", "r"),
        ("another", "r"),
        ("too short to tell", "r"),
    ];
    table("Languages of the reasoning", &titles, &rows, false)
}

/// A histogram of lengths, from the buckets of `data.json`.
fn lengths(run: &RunFiles) -> String {
    let lengths = &run.data["lengths"];
    let pair = |pair: &serde_json::Value| Some((pair[0].as_f64()?, pair[1].as_f64()?));
    let buckets: Vec<(f64, f64)> =
        lengths["buckets"].as_array().into_iter().flatten().filter_map(pair).take(BUCKETS).collect();
    let most = buckets.iter().map(|bucket| bucket.1).fold(0.0, f64::max);
    if most <= 0.0 {
        return String::new();
    }
    let width = 386.0 / buckets.len() as f64;
    let mut svg = String::new();
    for (at, (upto, count)) in buckets.iter().enumerate() {
        let height = 120.0 * count / most;
        let x = 7.0 + width * at as f64;
        let _ = write!(
            svg,
            "<rect class=\"b1\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>up to {upto} tokens: \
             {count}</title></rect>",
            x + 1.0,
            134.0 - height,
            (width - 2.0).max(1.0)
        );
        if at == 0 || at + 1 == buckets.len() {
            let anchor = if at == 0 { "start" } else { "end" };
            let x = if at == 0 { 7.0 } else { 393.0 };
            let _ = write!(svg, "<text x=\"{x}\" y=\"152\" text-anchor=\"{anchor}\">up to {upto}</text>");
        }
    }
    let number = |key: &str| lengths[key].as_i64().map_or_else(|| "unknown".into(), grouped);
    format!(
        "<figure><h3>Lengths <span class=\"unit\">tokens an example</span></h3><svg viewBox=\"0 0 400 160\" \
         role=\"img\"><title>Lengths of the examples in tokens</title><path class=\"axis\" d=\"M7 134H393\"/>{svg}</svg>\
         <figcaption>Shortest {}, median {}, 95 % up to {}, longest {}.</figcaption></figure>\n",
        number("min"),
        number("median"),
        number("p95"),
        number("max")
    )
}

/// A kind of matrix, over its layers.
#[derive(Default)]
struct Kind {
    tensors: u64,
    numbers: i64,
    shapes: BTreeMap<String, String>,
    layers: std::collections::BTreeSet<u64>,
}

/// What of the model was trained.
pub(super) fn trained(run: &RunFiles) -> Option<Section> {
    let tensors = run.manifest["tensors"].as_array()?;
    let mut kinds: BTreeMap<&str, Kind> = BTreeMap::new();
    for tensor in tensors {
        let name = tensor["tensor"].as_str().unwrap_or_default();
        let parts: Vec<&str> = name.split('.').collect();
        let at = parts.iter().position(|part| part.starts_with("lora_"));
        let kind = kinds
            .entry(at.and_then(|at| parts.get(at.checked_sub(1)?)).copied().unwrap_or(name))
            .or_default();
        kind.tensors += 1;
        kind.numbers += tensor["count"].as_i64().unwrap_or(0);
        let shape = tensor["shape"].as_array().into_iter().flatten();
        let shape: Vec<String> = shape.map(ToString::to_string).collect();
        kind.shapes.insert(at.map_or("", |at| parts[at]).to_owned(), shape.join(" × "));
        let layer = parts.iter().position(|part| *part == "layers");
        let layer: Option<u64> = layer.and_then(|at| parts.get(at + 1)?.parse().ok());
        kind.layers.extend(layer);
    }
    let mut rows: Vec<Vec<String>> = kinds
        .iter()
        .map(|(name, kind)| {
            let shape = |which: &str| {
                let found = kind.shapes.iter().find(|(name, _)| name.starts_with(which));
                found.map_or_else(|| "-".into(), |(_, shape)| escape(shape))
            };
            let layers = match (kind.layers.first(), kind.layers.last()) {
                (Some(first), Some(last)) => format!("{first} to {last}"),
                _ => "-".into(),
            };
            vec![
                format!("<code>{}</code>", escape(name)),
                shape("lora_A"),
                shape("lora_B"),
                layers,
                kind.tensors.to_string(),
                grouped(kind.numbers),
            ]
        })
        .collect();
    let total = run.manifest["total"].as_i64().unwrap_or(0);
    rows.push(vec![
        "in all".into(),
        String::new(),
        String::new(),
        String::new(),
        tensors.len().to_string(),
        grouped(total),
    ]);
    let titles =
        [("matrix", ""), ("A", "r"), ("B", "r"), ("layers", "r"), ("tensors", "r"), ("numbers", "r")];
    let (rank, alpha) =
        (run.setting("lora.r").unwrap_or_default(), run.setting("lora.alpha").unwrap_or_default());
    let caption = format!(
        "LoRA <span class=\"unit\">rank {}, alpha {}; the product B A is added to each frozen matrix</span>",
        escape(&rank),
        escape(&alpha)
    );
    let mut matter = table(&caption, &titles, &rows, true);
    matter += "<p class=\"note\">Everything else stayed as published. manifest.json lists every tensor with its shape.</p>\n";
    matter += &super::routing::experts(run);
    let rail = format!("{} numbers.", grouped(total));
    Some(Section { id: "trained", title: "What was trained", rail, matter })
}

/// Commands, hashes, settings.
pub(super) fn reproduce(run: &RunFiles) -> Section {
    let config = run.folder.join("config.toml");
    let mut matter = format!(
        "<pre><code>descant train {} --set run.folder=runs/again\ndescant report {}</code></pre>\n",
        escape(&config.display().to_string()),
        escape(&run.name())
    );
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut add = |label: &str, value: &str| {
        rows.push(vec![escape(label), format!("<span class=\"hash\">{}</span>", escape(value))]);
    };
    let settings = run.summary.as_ref().and_then(|summary| summary["settings_sha256"].as_str());
    if let Some(hash) = settings {
        add("settings", hash);
    }
    for (name, value) in &run.identity {
        match name.as_str() {
            "samples" => add("data, as tokens", value),
            "device" => add("device", value),
            "train.seed" => add("seed", value),
            name => {
                if let Some(file) = name.strip_prefix("file ") {
                    add(&format!("base, {file}"), value);
                }
            }
        }
    }
    for (label, place) in [("chat template", "template"), ("tokenizer", "tokenizer")] {
        if let Some(hash) = run.data[place]["sha256"].as_str() {
            add(label, hash);
        }
    }
    if let Some(hash) = run.data["tokenizer_sha256"].as_str() {
        add("tokenizer", hash);
    }
    for (label, key) in [("data, the file", "data_sha256"), ("this program", "program_sha256")] {
        let hash = run.summary.as_ref().and_then(|summary| summary[key].as_str());
        if let Some(hash) = hash {
            add(label, hash);
        }
    }
    for (label, hash) in &run.hashes {
        add(label, hash);
    }
    for evaluation in run.evaluations.iter().flat_map(|all| &all.evaluations) {
        let suite = evaluation.suite.as_deref().unwrap_or("held out");
        add(&format!("questions, {suite}"), &evaluation.questions_sha256);
    }
    add("version", concat!("descant ", env!("CARGO_PKG_VERSION")));
    matter +=
        &table("<span class=\"vh\">Hashes</span>", &[("what", ""), ("SHA-256, or value", "")], &rows, false);
    let _ = writeln!(
        matter,
        "<details class=\"always\"><summary>Settings as resolved, config.toml</summary><pre><code>{}</code></pre></details>",
        escape(&run.config)
    );
    let rail = "Same build, settings, data and device: the same bytes.".to_owned();
    Section { id: "reproduce", title: "Reproduce", rail, matter }
}

/// What the page cannot know.
pub(super) fn limits(run: &RunFiles) -> Section {
    let mut items = vec![
        ("Another seed.", "One was run. The intervals do not include the variation from seed to seed.".to_owned()),
        ("Other tasks.", "The figures apply to questions like those that were asked.".to_owned()),
        (
            "How good the language is.",
            "Which language the reasoning is in was measured, not whether it is well written. Close neighbours of the \
             known languages may be taken for them: Swedish, Indonesian, Catalan, Marathi."
                .to_owned(),
        ),
        ("Other programs.", "The adapter was measured by Descant, on the device above.".to_owned()),
    ];
    if run.steps.iter().all(|step| step.validation.is_none()) {
        items.push((
            "Between the steps.",
            "The loss on rows that are not trained on was measured only before and after; data.validation draws a curve."
                .to_owned(),
        ));
    }
    if run.experts.is_none() && run.summary.is_some() {
        items.push(("Routing.", "The load of the experts was not counted.".to_owned()));
    }
    if let Some((_, _)) = main_evaluation(run) {
        let tokens = run.setting("evaluate.max_new_tokens").unwrap_or_default();
        items.push((
            "Sampling.",
            format!("Replies have at most {tokens} tokens; longer ones count as cut or looped."),
        ));
    } else {
        items.push(("Everything else.", "Nothing was measured: there were no questions.".to_owned()));
    }
    if !descant_evaluate::TELLS_LATIN_APART {
        items.push(("Latin languages.", "This build does not distinguish them.".to_owned()));
    }
    let items: Vec<String> =
        items.iter().map(|(what, text)| format!("<li><b>{what}</b> {}</li>", escape(text))).collect();
    let matter = format!("<ul class=\"plain\">{}</ul>\n", items.join("\n"));
    Section { id: "limits", title: "Limits", rail: "What this page does not show.".into(), matter }
}
