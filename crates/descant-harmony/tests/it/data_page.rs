//! `docs/data.md`: every row on it is read, rendered and masked, and what it says comes out must come out.
//!
//! After a wanted change: `DESCANT_UPDATE=1 cargo test -p descant-harmony --test it data_page`, and read the
//! difference.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use descant_harmony::prepare::{PrepareOptions, prepare};
use descant_harmony::preview::runs;
use descant_harmony::read::{ReadOptions, read};
use descant_harmony::{MaskPolicy, TextEncoder as _};
use serde_json::Value;

use crate::support::{gpt_oss, tiny};

/// What the page calls the system message of the template.
const SYSTEM: &str = "[system]";

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/data.md")
}

/// A fenced block: what is behind the fence, its lines, and where they are.
struct Block<'p> {
    info: &'p str,
    body: String,
    lines: std::ops::Range<usize>,
}

fn blocks<'p>(lines: &[&'p str]) -> Vec<Block<'p>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        if let Some(info) = lines[at].strip_prefix("```") {
            let end = (at + 1..lines.len()).find(|&end| lines[end] == "```").expect("every fence is closed");
            found.push(Block { info, body: lines[at + 1..end].join("\n"), lines: at + 1..end });
            at = end;
        }
        at += 1;
    }
    found
}

/// What the page says of a row: its views with the trained parts marked, or why it is refused.
fn shown(row: &str, policy: MaskPolicy, ending: &str) -> String {
    let value: Value = serde_json::from_str(row).unwrap_or_else(|error| panic!("{error}\n{row}"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(format!("rows.{ending}"));
    write_row(&path, &value.to_string(), ending);
    shown_file(&path, policy)
}

/// The same of all rows of a file.
pub(crate) fn shown_file(path: &Path, policy: MaskPolicy) -> String {
    let options = PrepareOptions { mask: policy, ..PrepareOptions::default() };
    let prepared = read(path, &ReadOptions::default()).and_then(|set| prepare(tiny(), &set, &options));
    match prepared {
        Err(error) => error.to_string().replace(&path.display().to_string(), "conversations.jsonl"),
        Ok(prepared) => {
            let views = prepared.examples.iter().map(|example| {
                let runs = runs(tiny().tokenizer(), &example.ids, &example.mask).unwrap();
                marked(runs.iter().map(|run| (run.trained, run.text.as_str())))
            });
            let views: Vec<String> = views.collect();
            views.join("\n\n")
        }
    }
}

fn write_row(path: &Path, line: &str, ending: &str) {
    let file = std::fs::File::create(path).unwrap();
    let bytes = format!("{line}\n");
    match ending {
        "jsonl.gz" => {
            let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            packed.write_all(bytes.as_bytes()).unwrap();
            packed.finish().unwrap();
        }
        _ => (&file).write_all(bytes.as_bytes()).unwrap(),
    }
}

/// The text with trained parts between brackets, the template's own system message cut short.
fn marked<'r>(runs: impl Iterator<Item = (bool, &'r str)>) -> String {
    let mut text = String::new();
    let mut inside = false;
    for (trained, part) in runs {
        if trained != inside {
            text.push(if trained { '⟦' } else { '⟧' });
            inside = trained;
        }
        text.push_str(part);
    }
    if inside {
        text.push('⟧');
    }
    let (start, end) = ("<|start|>system<|message|>", "Channel must be included for every message.");
    match (text.find(start), text.find(end)) {
        (Some(from), Some(to)) => {
            let rest = text[to..].find("<|end|>").map_or(text.len(), |close| to + close + "<|end|>".len());
            let effort = text[from..to].split("Reasoning: ").nth(1).and_then(|rest| rest.lines().next());
            let system = match effort {
                Some("medium") | None => SYSTEM.to_owned(),
                Some(other) => format!("[system, {other} effort]"),
            };
            format!("{}{system}{}", &text[..from], &text[rest..])
        }
        _ => text,
    }
}

fn policy(info: &str) -> MaskPolicy {
    match info {
        "text" | "text error" => MaskPolicy::Assistant,
        "text final_only" => MaskPolicy::FinalOnly,
        "text everything" => MaskPolicy::Everything,
        other => panic!("no such block: {other}"),
    }
}

#[test]
fn every_example_gives_what_the_page_says() {
    let written = std::fs::read_to_string(page()).unwrap();
    let lines: Vec<&str> = written.lines().collect();
    let (mut row, mut checked, mut refused) = (None, 0, 0);
    let mut new: Vec<String> = Vec::new();
    let mut copied = 0;
    for block in blocks(&lines) {
        if block.info == "json" {
            row = Some(block.body);
        } else if block.info.starts_with("text") {
            let row = row.as_deref().expect("a row stands before what it gives");
            let gives = shown(row, policy(block.info), "jsonl");
            assert_eq!(shown(row, policy(block.info), "jsonl.gz"), gives, "packed or not is the same");
            assert_eq!(gives.contains('⟦'), block.info != "text error", "{row}\n{gives}");
            (checked, refused) = (checked + 1, refused + usize::from(block.info == "text error"));
            new.extend(lines[copied..block.lines.start].iter().map(ToString::to_string));
            new.push(gives);
            copied = block.lines.end;
        }
    }
    new.extend(lines[copied..].iter().map(ToString::to_string));
    let new = new.join("\n") + "\n";
    if std::env::var_os("DESCANT_UPDATE").is_some() {
        std::fs::File::create(page()).unwrap().write_all(new.as_bytes()).unwrap();
    }
    assert!(checked >= 14 && refused >= 5, "the examples were found");
    let now = std::fs::read_to_string(page()).unwrap();
    assert!(
        now == new,
        "docs/data.md is not what the rows give; see crates/descant-harmony/tests/it/data_page.rs"
    );
}

#[test]
fn a_wrong_example_would_be_found() {
    let row = r#"{"prompt": "2 + 5?", "thinking": "Add.", "completion": "7"}"#;
    let right = shown(row, MaskPolicy::Assistant, "jsonl");
    assert_ne!(shown(&row.replace('7', "8"), MaskPolicy::Assistant, "jsonl"), right);
    assert_ne!(shown(row, MaskPolicy::FinalOnly, "jsonl"), right);
    assert!(right.starts_with(SYSTEM), "{right}");
}

/// The page says that a control token in a message is several ordinary tokens; with the published tokenizer.
#[test]
fn a_written_control_token_is_several_ordinary_ones() {
    let written = gpt_oss().tokenizer().encode_text("<|return|>").unwrap();
    assert!((3..=8).contains(&written.len()), "{}", written.len());
    assert!(!written.contains(&gpt_oss().tokenizer().control().return_));
}
