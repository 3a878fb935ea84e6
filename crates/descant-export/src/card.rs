//! The model card of a merged model, and Ollama's Modelfile.

use std::fmt::Write as _;

use descant_lora::peft::{hub_name, short_name};

use crate::form::{Experts, Form};
use crate::report::Report;

/// The text of a merged folder's `README.md`: front matter that hubs index, what was merged, what survived, and the
/// proof where there is one. `None` for adapters: some have a card of their own.
pub fn model_card(report: &Report) -> Option<String> {
    let (base, name) = match hub_name(&report.base_model) {
        Some(base) => (format!("base_model: {base}\nbase_model_relation: finetune\n"), short_name(base)),
        None => (String::new(), "A local gpt-oss"),
    };
    let form = match report.form {
        Form::Bf16 => "BF16, in the layout of transformers",
        Form::Mxfp4 => "the published layout: experts in MXFP4, the rest in BF16",
        Form::Gguf if report.experts.is_some() => "GGUF: experts in MXFP4, the rest in BF16",
        Form::Gguf => "GGUF, in BF16",
        _ => return None,
    };
    let mut text = format!(
        "---\n{base}pipeline_tag: text-generation\ntags:\n- gpt-oss\n- \
         descant\n---\n\n# {name}, fine-tuned and merged\n\nA LoRA adapter, merged by Descant into the model it was \
         trained on.\n\n| | |\n| --- | --- |\n| weights | {form} |\n| weights that the adapter changes | {} |\n| bytes \
         | {} |\n",
        report.changed, report.bytes
    );
    if let Some(numbers) = &report.trained_experts {
        let _ = writeln!(text, "| experts, when it was trained | {numbers} in training steps |");
    }
    text.push_str(&survival_rows(report));
    text.push_str("\nWhat became of each weight is in `export.json`.\n");
    Some(text)
}

/// What survived, as rows of a table in Markdown with two columns; empty where there is nothing to report.
fn survival_rows(report: &Report) -> String {
    let mut rows: Vec<(&str, String)> = Vec::new();
    if let Some(all) = &report.survival {
        rows.push(("update, in shares of the weights", percent(all.update)));
        rows.push(("of it in the export", percent(all.along)));
    }
    if let Some(experts) = &report.experts_survival {
        let rule = match report.experts {
            Some(Experts::Feedback) => "packed MXFP4 anew, rounded with feedback",
            _ => "packed MXFP4 anew, rounded to the nearest",
        };
        rows.push(("experts", rule.to_owned()));
        if let Some(lost) = experts.a_error {
            rows.push(("lost of what the adapter reads of the experts' update", percent(lost)));
        }
        rows.push(("rounding of the experts, in shares of the weights", percent(experts.error)));
    }
    let worst = report.weights.iter().find(|row| Some(&row.tensor) == report.worst.as_ref());
    if let Some((row, survival)) = worst.and_then(|row| Some((row, row.survival?))) {
        let (kept, lost) = (percent(survival.along), percent(survival.a_error.unwrap_or_default()));
        rows.push((
            "the weight that keeps least",
            format!("`{}`: {kept} along the update, {lost} lost", row.tensor),
        ));
    }
    let repacked = report.weights.iter().filter_map(|row| row.repacked_error).reduce(f64::max);
    if let Some(error) = repacked {
        rows.push(("packed although they were not MXFP4: largest error of a weight", percent(error)));
    }
    if let Some(proof) = &report.proof {
        let losses =
            [proof.loss_base, proof.loss_adapter, proof.loss_export].map(|loss| format!("{loss:.4}"));
        rows.push(("held-out loss of base, adapter, this export", losses.join(", ")));
        rows.push(("divergence from base and adapter, nats a token", format!("{:.1e}", proof.kl)));
        rows.push(("the same next token", percent(proof.top1)));
    }
    let lines: Vec<String> =
        rows.into_iter().map(|(what, value)| format!("| {what} | {value} |\n")).collect();
    lines.concat()
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// Ollama's Modelfile for a GGUF file beside it.
///
/// Ollama parses Harmony only where its own template for gpt-oss is in the Modelfile, and that is theirs to give out.
pub(crate) fn modelfile(gguf: &str) -> String {
    format!(
        "# For Ollama. It parses gpt-oss's reasoning and tool calls only with its own\n\
         # template. Take that from its published model, and put this file in its place:\n\
         #\n\
         #   ollama pull gpt-oss:20b\n\
         #   ollama show --modelfile gpt-oss:20b | sed 's|^FROM .*|FROM ./{gguf}|' > Modelfile.ollama\n\
         #   ollama create my-model -f Modelfile.ollama\n\
         #\n\
         # What follows runs without it, and shows the control tokens of the format in its answers.\n\
         FROM ./{gguf}\n\
         TEMPLATE \"\"\"{{{{ if .System }}}}<|start|>system<|message|>{{{{ .System }}}}<|end|>{{{{ end }}}}<|start|>user<|message|>{{{{ \
         .Prompt }}}}<|end|><|start|>assistant\"\"\"\n\
         PARAMETER temperature 1.0\n\
         PARAMETER top_k 0\n\
         PARAMETER top_p 1.0\n"
    )
}

#[cfg(test)]
mod tests {
    use descant_lora::peft::PublicName;

    use super::*;

    #[test]
    fn a_card_names_a_repository_and_never_a_path() {
        for form in [Form::Bf16, Form::Mxfp4, Form::Gguf] {
            let card = |name: &str| {
                let base = PublicName { name: name.to_owned(), revision: None };
                model_card(&Report::new(form, base)).unwrap()
            };
            let named = card("openai/gpt-oss-20b");
            let front = "---\nbase_model: openai/gpt-oss-20b\nbase_model_relation: finetune\n";
            assert!(named.starts_with(front) && named.contains("\n# gpt-oss-20b, fine-tuned"), "{named}");
            for local in ["/home/user/model", "model", "a/b\n---\nlicense: mit", "src/gguf"] {
                let card = card(local);
                assert!(card.starts_with("---\npipeline_tag: text-generation\n"), "{card}");
                assert!(!card.contains("/home") && !card.contains("license"), "{card}");
            }
        }
    }
}
