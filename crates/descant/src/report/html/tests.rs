//! The page: hostile text, nothing from elsewhere, parts left out, figures found again, size, contrast.

use descant_evaluate::{Claim, Evaluations, Measure, Side};
use descant_train::{ChannelLoss, StepMetrics, ValidationMetrics};
use serde_json::{Value as Json, json};

use super::markup::STYLE;
use super::*;
use crate::observe::step_of;
use crate::report::run_files::{GradientLine, Plain};
use crate::report::samples::Sample;

/// The golden evaluation, from a run that replied once to each prompt.
fn evaluations() -> Evaluations {
    let text = include_str!("../../../../../fixtures/evaluate/golden/evaluation.json");
    Evaluations::from_json(serde_json::from_str(text).unwrap()).unwrap()
}

fn sample(text: &str) -> Sample {
    let reply = format!(
        "<|channel|>analysis<|message|>{text}<|end|><|start|>assistant<|channel|>final<|message|>{text}<|return|>"
    );
    Sample {
        suite: text.into(),
        id: text.into(),
        effort: text.into(),
        asked: Some(text.into()),
        language: Some(text.into()),
        user: text.into(),
        before: text.into(),
        after: Some(reply),
    }
}

/// The step with a look at examples that are not trained on, all of one channel.
fn watched(channel: &str, mut step: StepMetrics) -> StepMetrics {
    let loss = 2.0 * step.loss;
    let channels = [(channel.to_owned(), ChannelLoss { loss, tokens: 5 })].into();
    step.validation = Some(ValidationMetrics { loss, loss_bits: loss.to_bits(), tokens: 5, channels });
    step
}

/// A run with `text` wherever a text from outside can occur.
pub(in crate::report) fn run(text: &str) -> RunFiles {
    let mut all = evaluations();
    for evaluation in &mut all.evaluations {
        evaluation.suite = Some(text.to_owned());
        for change in evaluation.changes.iter_mut().flatten() {
            change.lost = vec![text.to_owned()];
        }
    }
    RunFiles {
        folder: text.into(),
        config: format!(
            "[model]\npath = {}\n[train]\nmax_grad_norm = 1.0\n",
            toml::Value::String(text.to_owned())
        ),
        identity: vec![("file x".into(), text.into()), ("device".into(), text.into())],
        manifest: json!({"total": 5, "tensors": [{"tensor": format!("layers.1.{text}.lora_A"), "shape": [1, 5], "count": 5}]}),
        data: json!({"examples": 2, "account": {"tokens": {text: {"tokens": 4, "trained": 2}}},
            "languages": [{"stated": text, "examples": 2, "found": {text: 1}, "unsure": 1}],
            "lengths": {"buckets": [[100, 2]], "min": 1}, "template": {"sha256": text}}),
        steps: vec![watched(text, step_of(1, 0.5)), watched(text, step_of(2, 0.1))],
        timings: Vec::new(),
        gradients: [1, 2]
            .map(|step| GradientLine {
                step,
                norms: [(format!("layers.0.{text}"), 0.5), (text.into(), 0.1)].into(),
            })
            .into(),
        experts: serde_json::from_value(json!({"schema_version": 1, "rows": 2, "experts_per_token": 1,
            "before": {"tokens": 8, "layers": [[4, 4, 0], [8, 0, 0]]},
            "after": {"tokens": 8, "layers": [[6, 1, 1], [8, 0, 0]]}}))
        .unwrap(),
        summary: Some(json!({"settings_sha256": text, "phases": [{"name": text, "seconds": 1.0}],
            "planned_memory": [{"part": text, "bytes": 1}]})),
        evaluations: Some(all),
        samples: vec![sample(text)],
        plain: Some(Plain { pairs: 3, same: 2 }),
        hashes: vec![(text.into(), text.into())],
    }
}

/// The tags of a page, without what is between them.
fn tags(html: &str) -> Vec<&str> {
    let body = &html[html.find("</style>").unwrap()..];
    body.split('<').skip(1).map(|rest| rest.split(['>', ' ']).next().unwrap()).collect()
}

#[test]
fn no_text_can_become_markup() {
    let plain = render(&run("plain"));
    for hostile in
        ["<script>alert(1)</script>", "\"><img src=x onerror=1>", "' & &lt; <!--", "</pre></dd>", "a\u{0}b"]
    {
        let html = render(&run(hostile));
        assert_eq!(tags(&html), tags(&plain), "{hostile}");
        assert!(!html.contains('\u{0}') && !html.contains("onerror=1>"));
    }
    // The control: a page with one more tag is distinguished.
    assert_ne!(tags(&plain.replace("<h2", "<script><h2")), tags(&plain));
}

#[test]
fn runs_side_by_side_are_named_apart_and_no_text_of_theirs_can_become_markup() {
    let two = |text: &str, folders: [&str; 2]| {
        let mut runs = [run(text), run(text)];
        for (rank, (run, folder)) in runs.iter_mut().zip(folders).enumerate() {
            run.folder = folder.into();
            run.identity.push(("lora.r".into(), format!("{rank} {text}")));
        }
        side_by_side(&runs)
    };
    let plain = two("plain", ["/home/a/runs/x", "/home/a/runs/y/z"]);
    assert!(plain.contains(">x</th>") && plain.contains(">y/z</th>") && !plain.contains("/home"));
    assert!(two("plain", ["runs/x", "runs/x"]).contains(">x</th>"), "a run beside itself has a name");
    for hostile in ["<script>alert(1)</script>", "\"><img src=x onerror=1>", "' & &lt; <!--", "a\u{0}b"] {
        let html = two(hostile, [&format!("runs/{hostile}1"), &format!("runs/{hostile}2")]);
        assert_eq!(tags(&html), tags(&plain), "{hostile}");
        assert!(!html.contains('\u{0}') && !html.contains("onerror=1>"));
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_its_links_lead_somewhere() {
    let html = render(&run("plain"));
    for outside in ["http:", "https:", "src=", "url(", "@import", "<script", "<link"] {
        assert!(!html.contains(outside), "{outside}");
    }
    let ids: Vec<&str> = html.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "ids are unique: {ids:?}");
    for target in html.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(ids.contains(&target), "{target}");
    }
    assert_eq!(html.matches("<table").count(), html.matches("<caption").count());
    assert!(html.matches("<th ").all(|_| true) && !html.contains("<th>"), "every heading has a scope");
}

/// Every number of a JSON value, as a page may write it: counts as they are, shares in percent.
fn numbers_of(json: &Json, out: &mut std::collections::BTreeSet<String>) {
    match json {
        Json::Number(number) if number.is_f64() => {
            out.insert(crate::report::key::percent(number.as_f64().unwrap()));
        }
        Json::Number(number) => {
            out.insert(number.to_string());
        }
        Json::Array(items) => items.iter().for_each(|item| numbers_of(item, out)),
        Json::Object(map) => map.values().for_each(|value| numbers_of(value, out)),
        _ => {}
    }
}

/// Numbers in the headline and in the sentences below it.
fn numbers_in_head(html: &str) -> Vec<String> {
    let head = html.split("<h1>").nth(1).unwrap().split("<dl").next().unwrap();
    let text: String =
        head.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect();
    let numbers = text.split(|c: char| !(c.is_ascii_digit() || c == '.')).map(|n| n.trim_matches('.'));
    numbers.filter(|n| !n.is_empty()).map(str::to_owned).collect()
}

#[test]
fn every_number_of_the_headline_is_in_the_evaluation() {
    let run = run("plain");
    let html = render(&run);
    let mut known = std::collections::BTreeSet::new();
    numbers_of(&serde_json::to_value(run.evaluations.as_ref().unwrap()).unwrap(), &mut known);
    let found = numbers_in_head(&html);
    assert!(found.len() >= 8, "both shares, right answers, spill-over: {found:?}");
    for number in &found {
        assert!(known.contains(number), "{number} of {found:?}");
    }
    let heading = html.split("<h1>").nth(1).unwrap().split("</h1>").next().unwrap();
    let main = run.evaluations.as_ref().unwrap().main().unwrap();
    let pooled = |side: &Side| {
        let cell = side.pooled("any").unwrap();
        crate::report::key::percent(cell.hit as f64 / cell.n as f64)
    };
    let [was, now] = [pooled(&main.before), pooled(main.after.as_ref().unwrap())];
    assert!(
        heading.contains(&format!("{was} % before")) && heading.contains(&format!("{now} % after")),
        "{heading}"
    );
    // The control: a number that was never measured is found out.
    assert!(!known.contains("98.7"));
}

#[test]
fn reasoning_that_is_gone_stands_in_the_first_sentence_and_only_then() {
    let mut run = run("plain");
    let lede =
        |html: &str| html.split("class=\"lede\">").nth(1).unwrap().split("</p>").next().unwrap().to_owned();
    let gone = "Fewer replies reason at all, none asked: 100 to 0 %.";
    assert!(!lede(&render(&run)).contains("reason at all"));
    let all = run.evaluations.as_mut().unwrap();
    for evaluation in &mut all.evaluations {
        for change in evaluation.changes.iter_mut().flatten() {
            if change.measure == Measure::Present && !change.asked {
                (change.before, change.after, change.claim) = (1.0, 0.0, Claim::Down);
            }
        }
    }
    assert!(lede(&render(&run)).starts_with(gone), "{}", lede(&render(&run)));
    // Where most of it is gone, the heading speaks of it and not of the language.
    let heading = |html: &str| html.split("<h1>").nth(1).unwrap().split(':').next().unwrap().to_owned();
    assert!(heading(&render(&run)).starts_with("Asked for a language"), "{}", heading(&render(&run)));
    for evaluation in &mut run.evaluations.as_mut().unwrap().evaluations {
        for cell in evaluation.after.iter_mut().flat_map(|side| &mut side.cells) {
            cell.analysis.present = 0;
        }
    }
    assert_eq!(heading(&render(&run)), "Fewer replies reason at all");
}

#[test]
fn parts_without_data_are_left_out_and_an_unfinished_run_says_so() {
    let empty = RunFiles {
        folder: "runs/x".into(),
        config: String::new(),
        identity: Vec::new(),
        manifest: Json::Null,
        data: Json::Null,
        steps: Vec::new(),
        timings: Vec::new(),
        gradients: Vec::new(),
        experts: None,
        summary: None,
        evaluations: None,
        samples: Vec::new(),
        plain: None,
        hashes: Vec::new(),
    };
    let html = render(&empty);
    for part in ["<svg", "id=\"key\"", "id=\"worse\"", "id=\"learning\"", "id=\"data\""] {
        assert!(!html.contains(part), "{part}");
    }
    assert!(html.contains("In training") && html.contains("This run has not ended"));
    let done = render(&RunFiles { summary: Some(json!({})), ..empty });
    assert!(done.contains("Trained, not measured") && !done.contains("This run has not ended"));
}

#[test]
fn a_large_run_is_a_small_page() {
    let mut large = run("plain");
    large.steps = (1..=3000).map(|step| step_of(step, 1.0 / step as f32)).collect();
    large.timings = large
        .steps
        .iter()
        .map(|step| descant_train::StepTiming {
            step: step.step,
            seconds: 0.1,
            tokens_per_second: 1e4 + step.step as f64,
            shared: None,
        })
        .collect();
    let long = "Une phrase de raisonnement. ".repeat(400);
    large.samples = (0..30)
        .flat_map(|n| ["low", "medium", "high"].map(|effort| (n, effort)))
        .map(|(n, effort)| Sample {
            id: format!("q{n}"),
            effort: effort.into(),
            asked: Some("French".into()),
            language: Some("fr".into()),
            ..sample(&long)
        })
        .collect();
    let codes: Vec<String> = (0..30).map(|n| format!("l{n}")).collect();
    for evaluation in large.evaluations.iter_mut().flat_map(|all| &mut all.evaluations) {
        let sides = [Some(&mut evaluation.before), evaluation.after.as_mut()];
        for side in sides.into_iter().flatten() {
            let model = side.cells.iter().find(|cell| cell.asked == "any").unwrap().clone();
            side.cells.retain(|cell| matches!(cell.asked.as_str(), "none" | "any"));
            for effort in ["low", "medium", "high"] {
                for code in &codes {
                    let found = codes.iter().map(|found| (found.clone(), 3)).collect();
                    let (effort, asked) = (effort.to_owned(), code.clone());
                    side.cells.push(descant_evaluate::Cell { effort, asked, found, ..model.clone() });
                }
            }
        }
    }
    let html = render(&large);
    assert!(html.len() < 200_000, "{} bytes", html.len());
    assert!(html.contains("l29") && html.contains("step 3000"));
}

/// Contrast of two colours as WCAG computes it.
fn contrast(a: &str, b: &str) -> f64 {
    let light = |colour: &str| {
        let part = |at: usize| {
            let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.03928 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    };
    let (a, b) = (light(a), light(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn colours_can_be_told_apart_in_both_schemes() {
    let schemes: Vec<&str> =
        STYLE.split(":root {").skip(1).take(2).map(|rest| rest.split('}').next().unwrap()).collect();
    assert_eq!(schemes.len(), 2);
    for scheme in schemes {
        let colour = |name: &str| {
            let at =
                scheme.find(&format!("--{name}: #")).unwrap_or_else(|| panic!("{name}")) + name.len() + 4;
            &scheme[at..at + 7]
        };
        for (text, on, least) in [
            ("ink", "paper", 4.5),
            ("soft", "paper", 4.5),
            ("voice", "paper", 4.5),
            ("second", "paper", 4.5),
            ("ink", "card", 4.5),
            ("edge", "paper", 3.0),
            ("t1", "h1", 4.5),
            ("t1", "h2", 4.5),
            ("t3", "h3", 4.5),
            ("t5", "h4", 4.5),
            ("t5", "h5", 4.5),
        ] {
            let found = contrast(colour(text), colour(on));
            assert!(found >= least, "{text} on {on}: {found:.2}");
        }
    }
}
