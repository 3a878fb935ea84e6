//! The model card beside an adapter: front matter that hubs index, results with intervals, how to use it, limits.
//!
//! Sentences and figures are the report's, so that the two cannot differ. Every text from outside goes through
//! [`cell`] or [`yaml`]; a path never becomes a value of the front matter.

use std::fmt::Write as _;

use descant_evaluate::{Cell, Evaluation, Side, name_of};

use super::key::figures;
use super::run_files::RunFiles;
use super::sentences::{verdict, worse};
use super::survival::{Survival, survival};
use crate::settings::EMBEDDED_MODEL_NAME;
use crate::words::{grouped, is_hub_name};

/// Text inside a cell or a line of Markdown.
fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' => {
                out.push('\\');
                out.push(c);
            }
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A quoted scalar of YAML; JSON's strings are that.
fn yaml(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
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
    let main = run.evaluations.as_ref().and_then(|all| Some((all.main()?, all.replies_each())));
    match main {
        None => text += "Not measured.\n",
        Some((evaluation, replies)) => {
            let figures = figures(evaluation, replies);
            let _ = writeln!(text, "{}\n\n## Results\n", verdict(&figures));
            let efforts = evaluation.efforts.join(", ");
            let _ =
                writeln!(text, "Each question at {efforts} effort, one seed. In brackets: 95 % interval.\n");
            text += "| percent of replies | n | base | with the adapter |\n| :--- | ---: | ---: | ---: |\n";
            for figure in &figures {
                let shown =
                    |share: &super::key::Share| format!("{} ({})", share.percent(), share.interval_text());
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
                let worse =
                    if worse.is_empty() { "nothing of what was measured".into() } else { worse.join("; ") };
                let _ = writeln!(text, "**What got worse:** {}.\n", cell(&worse));
            }
        }
    }
    text += &usage(base);
    text += &recipe(run);
    text += &limits(run);
    text += &reproduce(run, commit);
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

/// How each loader takes it. Only what was really tried is said to have been.
fn usage(base: Option<&str>) -> String {
    let base = base.filter(|name| is_hub_name(name));
    let name = base.unwrap_or("BASE_FOLDER");
    let local = base.map_or_else(|| "BASE_FOLDER".to_owned(), |base| format!("hf://{base}"));
    format!(
        "## How to use it\n\nThe request is in the developer message: `reasoning language: German`.\n\n\
         ### Descant\n\n```sh\ndescant generate --model {local} --adapter . \\\n    --developer 'reasoning language: German' \
         'What is 88 + 10?' --greedy\n```\n\n\
         ### PEFT and transformers\n\n```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM, \
         AutoTokenizer\n\nbase = \"{name}\"\ntokenizer = AutoTokenizer.from_pretrained(base)\n\
         model = AutoModelForCausalLM.from_pretrained(base, dtype=\"auto\", device_map=\"auto\")\n\
         model = PeftModel.from_pretrained(model, \"THIS_FOLDER\")\n\nmessages = [\n    {{\"role\": \"developer\", \
         \"content\": \"reasoning language: German\"}},\n    {{\"role\": \"user\", \"content\": \"What is 88 + 10?\"}},\n]\n\
         inputs = tokenizer.apply_chat_template(\n    messages, add_generation_prompt=True, reasoning_effort=\"medium\",\n    \
         return_tensors=\"pt\", return_dict=True,\n).to(model.device)\nreply = model.generate(**inputs, \
         max_new_tokens=1024, do_sample=False)\nprint(tokenizer.decode(reply[0][inputs[\"input_ids\"].shape[1]:]))\n```\n\n\
         ### vLLM\n\n```sh\nvllm serve {name} --enable-lora --lora-modules asked=THIS_FOLDER      # then ask for the \
         model \"asked\"\n```\n\n\
         ### llama.cpp\n\n```sh\ndescant export --adapter . --to gguf-lora --out adapter.gguf      # and the base with --to gguf\n\
         llama-server -m BASE.gguf --lora adapter.gguf\n```\n\n\
         ### mistral.rs\n\n```sh\nmistralrs serve -p 1234 -m {name} --lora THIS_FOLDER\n```\n\n\
         | loader | tried with this adapter |\n| :--- | :--- |\n| Descant {} | yes, the results above |\n\
         | PEFT, transformers | no; adapters of this form are compared with PEFT in Descant's tests |\n| vLLM | no |\n| llama.cpp | no |\n\
         | mistral.rs | no |\n\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn recipe(run: &RunFiles) -> String {
    let setting = |key: &str| run.setting(key).unwrap_or_else(|| "-".into());
    let mut text = "## Training\n\n| | |\n| :--- | :--- |\n".to_owned();
    let targets = setting("lora.targets").replace(['[', ']', '"'], "");
    let mut row = |label: &str, value: String| _ = writeln!(text, "| {label} | {} |", cell(&value));
    row(
        "method",
        format!(
            "LoRA, rank {}, alpha {}, on {targets}; everything else frozen",
            setting("lora.r"),
            setting("lora.alpha")
        ),
    );
    row("trained numbers", run.manifest["total"].as_u64().map_or_else(|| "-".into(), grouped));
    row(
        "data",
        run.data["examples"]
            .as_u64()
            .map_or_else(|| "-".into(), |n| format!("{} conversations{}", grouped(n), tokens(run))),
    );
    row(
        "optimizer",
        format!(
            "{}, learning rate {}, {} warm-up steps, then {}, weight decay {}, clip {}",
            setting("train.optimizer"),
            setting("train.learning_rate"),
            setting("train.warmup_steps"),
            setting("train.schedule"),
            setting("train.weight_decay"),
            setting("train.max_grad_norm")
        ),
    );
    if let (Some(first), Some(last)) = (run.steps.first(), run.steps.last()) {
        row("steps", format!("{} of {} conversations, {:.2} passes", last.step, last.samples, last.epoch));
        row("loss", format!("{:.4} at the first step, {:.4} at the last", first.loss, last.loss));
    }
    let seconds: f64 = run.timings.iter().map(|timing| timing.seconds).sum();
    row(
        "cost",
        format!("{seconds:.1} s of steps on {}", run.identity("device").unwrap_or("an unknown device")),
    );
    text + "\n"
}

/// Tokens of the data, and which of them were trained.
fn tokens(run: &RunFiles) -> String {
    let channels = || run.data["account"]["tokens"].as_object().into_iter().flatten();
    let sum = |key: &str| channels().filter_map(|(_, of)| of[key].as_u64()).sum::<u64>();
    let (all, trained) = (sum("tokens"), sum("trained"));
    if all == 0 {
        return String::new();
    }
    let parts = channels().filter_map(|(name, of)| {
        let count = of["trained"].as_u64().filter(|count| *count > 0)?;
        Some(format!("{name} {}", grouped(count)))
    });
    let parts: Vec<String> = parts.collect();
    format!("; {} tokens, {} of them trained: {}", grouped(all), grouped(trained), parts.join(", "))
}

fn limits(run: &RunFiles) -> String {
    let mut text = "## Limits\n\n* One seed. How much the figures move from seed to seed was not measured.\n\
                    * The figures apply to questions like those that were asked.\n\
                    * Which language the reasoning is in was measured, not how well it is written.\n"
        .to_owned();
    if run.evaluations.is_none() {
        text += "* Nothing was measured.\n";
    }
    text + "\n"
}

fn reproduce(run: &RunFiles, commit: Option<&str>) -> String {
    let mut text = format!(
        "## Reproduce\n\n`descant train config.toml` with Descant {}: the same build, settings, data and device give the \
         same bytes.\n\n| | SHA-256, or value |\n| :--- | :--- |\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut row = |label: &str, value: &str| _ = writeln!(text, "| {} | `{}` |", cell(label), cell(value));
    if let Some(commit) = commit {
        row("base, commit", commit);
    }
    for (name, value) in &run.identity {
        match name.as_str() {
            "samples" => row("data, as tokens", value),
            "device" => row("device", value),
            "train.seed" => row("seed", value),
            name => {
                if let Some(file) = name.strip_prefix("file ") {
                    row(&format!("base, {file}"), value);
                }
            }
        }
    }
    if let Some(hash) = run.data["template"]["sha256"].as_str() {
        row("chat template", hash);
    }
    for (label, hash) in &run.hashes {
        row(label, hash);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::report::html::tests::run;

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

    #[test]
    fn no_text_leaves_its_cell() {
        assert_eq!(cell("a|b\n---\n<script>`x`"), "a\\|b --- &lt;script&gt;\\`x\\`");
        assert_eq!(yaml("a\n---\n\"b"), "\"a\\n---\\n\\\"b\"");
    }
}
