//! The model card beside an adapter: front matter that hubs index, results with intervals, how to use it, limits.
//!
//! Sentences and figures are the report's, so that the two cannot differ. Every text from outside goes through
//! [`cell`] or [`yaml`]; a path never becomes a value of the front matter.

use std::fmt::Write as _;

use super::key::{figures, verdict, worse};
use super::run_files::RunFiles;
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

/// The whole card. `base` is the base's name on a hub, where it has one, and `commit` what of it was used.
pub(crate) fn card(
    run: &RunFiles,
    base: Option<&str>,
    commit: Option<&str>,
    license: Option<&str>,
) -> String {
    let base = base.filter(|name| is_hub_name(name));
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
            text += "\nIntervals are Wilson's and count questions, because the replies to one question are not \
                     independent.\nThey do not cover another seed.\n\n";
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
    let name = base.unwrap_or("BASE_FOLDER");
    let local = base.map_or_else(|| "BASE_FOLDER".to_owned(), |base| format!("hf://{base}"));
    format!(
        "## How to use it\n\nThe request stands in the developer message: `reasoning language: German`.\n\n\
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
         | loader | tried with this adapter |\n| :--- | :--- |\n| Descant {} | yes, the results above |\n\
         | PEFT, transformers | no; adapters of this form are compared with PEFT in Descant's tests |\n| vLLM | no |\n\n",
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
        run.data["examples"].as_u64().map_or_else(|| "-".into(), |n| format!("{} conversations", grouped(n))),
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

fn limits(run: &RunFiles) -> String {
    let mut text = "## Limits\n\n* One seed. How much the figures move from seed to seed was not measured.\n\
                    * The figures speak of questions like those that were asked.\n\
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

    #[test]
    fn no_text_leaves_its_cell() {
        assert_eq!(cell("a|b\n---\n<script>`x`"), "a\\|b --- &lt;script&gt;\\`x\\`");
        assert_eq!(yaml("a\n---\n\"b"), "\"a\\n---\\n\\\"b\"");
    }
}
