//! What the model card says besides results: how to use the adapter, how it was trained, limits, how to reproduce it.

use std::fmt::Write as _;

use super::escape::cell;
use crate::report::run_files::RunFiles;
use crate::words::{grouped, is_hub_name};

/// How each loader takes it. Only what was really tried is said to have been.
pub(super) fn usage(base: Option<&str>) -> String {
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

pub(super) fn recipe(run: &RunFiles) -> String {
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
    if let Some(experts) = run.experts_numbers() {
        row("experts", experts);
    }
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

pub(super) fn limits(run: &RunFiles) -> String {
    let mut text = "## Limits\n\n* One seed. How much the figures move from seed to seed was not measured.\n\
                    * The figures apply to questions like those that were asked.\n\
                    * Which language the reasoning is in was measured, not how well it is written.\n"
        .to_owned();
    if run.evaluations.is_none() {
        text += "* Nothing was measured.\n";
    }
    text + "\n"
}

pub(super) fn reproduce(run: &RunFiles, commit: Option<&str>) -> String {
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
