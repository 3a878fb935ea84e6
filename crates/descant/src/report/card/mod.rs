//! The model card beside an adapter: front matter that hubs index, results with intervals, how to use it, limits.
//!
//! Sentences and figures are the report's, so that the two cannot differ. Every text from outside goes through
//! [`cell`] or [`yaml`]; a path never becomes a value of the front matter.

mod escape;
mod results;
mod sections;

use std::fmt::Write as _;

use super::run_files::RunFiles;
use crate::settings::EMBEDDED_MODEL_NAME;
use crate::words::is_hub_name;
use escape::{cell, yaml};
use results::results;
use sections::{limits, recipe, reproduce, usage};

/// The whole card. `base` is the base's name on a hub or that of the embedded model, where it has one, and `commit`
/// what of it was used.
pub(crate) fn card(
    run: &RunFiles,
    base: Option<&str>,
    commit: Option<&str>,
    license: Option<&str>,
) -> String {
    let base = base.filter(|name| is_hub_name(name) || *name == EMBEDDED_MODEL_NAME);
    let mut text = front_matter(run, base, license);
    let named = base.map_or("a local gpt-oss", |base| base.split_once('/').map_or(base, |(_, name)| name));
    let _ = writeln!(text, "# {}, a LoRA adapter\n", cell(named));
    text += &results(run);
    text += &usage(base);
    text += &recipe(run);
    text += &limits(run);
    text += &reproduce(run, commit);
    text
}

/// Codes of languages by their names in data sets.
fn codes(run: &RunFiles) -> Vec<String> {
    let mut stated: Vec<(u64, String)> = run.data["languages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|language| {
            let name = language["stated"].as_str()?;
            let code = descant_evaluate::Language::from_name(name)?.code();
            Some((language["examples"].as_u64().unwrap_or(0), code.to_owned()))
        })
        .collect();
    stated.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    stated.into_iter().map(|(_, code)| code).collect()
}

fn front_matter(run: &RunFiles, base: Option<&str>, license: Option<&str>) -> String {
    let mut text = "---\n".to_owned();
    if let Some(base) = base {
        let _ = writeln!(text, "base_model: {}\nbase_model_relation: adapter", yaml(base));
    }
    text += "library_name: peft\npipeline_tag: text-generation\n";
    if let Some(license) = license {
        let _ = writeln!(text, "license: {}", yaml(license));
    }
    let codes = codes(run);
    if !codes.is_empty() {
        text += "language:\n";
        for code in codes {
            let _ = writeln!(text, "- {code}");
        }
    }
    let data = run.setting("data.path").unwrap_or_default();
    let data = data.strip_prefix("hf://datasets/").map(|name| name.split('@').next().unwrap_or(name));
    if let Some(name) = data.filter(|name| is_hub_name(name)) {
        let _ = writeln!(text, "datasets:\n- {}", yaml(name));
    }
    text += "tags:\n";
    if let Some(base) = base {
        let _ = writeln!(text, "- {}", yaml(&format!("base_model:adapter:{base}")));
    }
    text + "- lora\n- gpt-oss\n- reasoning\n- descant\n---\n\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::report::html::tests::run;
    use crate::report::key::figures;

    /// Keys of a front matter and their values, in the subset of YAML that is written here.
    fn front(text: &str) -> Vec<(String, String)> {
        let body = text.strip_prefix("---\n").unwrap().split("\n---\n").next().unwrap();
        let mut key = String::new();
        let mut out = Vec::new();
        for line in body.lines() {
            if let Some(item) = line.strip_prefix("- ") {
                out.push((key.clone(), item.to_owned()));
            } else {
                let (name, value) = line.split_once(':').unwrap();
                name.clone_into(&mut key);
                out.push((key.clone(), value.trim().to_owned()));
            }
        }
        out
    }

    #[test]
    fn the_front_matter_has_known_keys_and_no_path_whatever_a_run_says() {
        let known = [
            "base_model",
            "base_model_relation",
            "library_name",
            "pipeline_tag",
            "license",
            "language",
            "datasets",
            "tags",
        ];
        for hostile in
            ["/home/user/model", "\"\n---\n", "a|b", "<script>", "owner/name\nlicense: mit", "plain"]
        {
            let text = card(&run(hostile), Some(hostile), None, Some(hostile));
            let front = front(&text);
            assert!(front.iter().all(|(key, _)| known.contains(&key.as_str())), "{front:?}");
            for (key, value) in front.iter().filter(|(key, _)| key != "license") {
                assert!(!value.trim_start_matches('"').starts_with('/'), "{key}: {value}");
            }
            assert!(front.iter().all(|(key, _)| key != "base_model"), "{hostile} names no repository");
            let tables = |text: &str| text.lines().filter(|line| line.starts_with('|')).count();
            let plain = card(&run("plain"), None, None, None);
            assert_eq!(tables(&text), tables(&plain), "{hostile} stays inside its cell");
            assert!(!text.split("\n---\n").skip(1).any(|body| body.contains("<script>")));
        }
        let named = front(&card(&run("plain"), Some("openai/gpt-oss-20b"), None, None));
        let model = named.iter().find(|(key, _)| key == "base_model").unwrap();
        assert_eq!(model.1, "\"openai/gpt-oss-20b\"");
    }

    #[test]
    fn the_figures_are_those_of_the_evaluation() {
        let run = run("plain");
        let text = card(&run, None, None, None);
        let main = run.evaluations.as_ref().unwrap().main().unwrap();
        for figure in figures(main, 1) {
            let row = text.lines().find(|line| line.starts_with(&format!("| {} |", figure.name))).unwrap();
            let shown = |share: &crate::report::key::Share| {
                format!("{} ({})", share.percent(), share.interval_text())
            };
            let before = figure.before.map_or_else(|| "-".into(), |share| shown(&share));
            let expected =
                format!("| {} | {} | {before} | {} |", figure.name, figure.after.of, shown(&figure.after));
            assert_eq!(row, expected);
        }
        for part in ["What got worse", "reasoning present", "mean length of the reasoning", "as asked, at "] {
            assert!(text.contains(part), "{part}");
        }
    }
}
