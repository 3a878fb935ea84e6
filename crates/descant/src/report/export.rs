//! The account of an export, for people.

use std::fmt::Write as _;
use std::path::Path;

use descant_export::{Form, Proof, REPORT_FILE, Report};

use crate::words::counted;
use crate::wrap::{LABEL, hanging, wrap_command};

/// Weights that are listed; the rest is in `export.json`.
const MOST_LAYERS: usize = 8;

/// What was written, what survived, and how to serve it, in a page of this width.
pub(crate) fn export_table(report: &Report, out: &Path, width: usize) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, "{}", hanging(label, value, width));
    };
    line("form", report.form.name());
    line("files", &format!("{} in {}, {} bytes", report.files.len(), out.display(), report.bytes));
    line(
        "weights",
        &format!("{} changed by the adapter; {} tensors written", report.changed, report.tensors),
    );
    if let Some(rank) = report.rank {
        line("rank", &rank.to_string());
    }
    if let Some(numbers) = &report.trained_experts {
        line("trained", &format!("experts in {numbers} in training steps"));
    }
    if let Some(all) = &report.survival {
        let (update, kept) = (percent(all.update), percent(all.along));
        line("update", &format!("{update} % of the weights; {kept} % of it is in the export"));
    }
    if let Some(experts) = &report.experts_survival {
        let [along, lost, error] =
            [experts.along, experts.a_error.unwrap_or_default(), experts.error].map(percent);
        line(
            "experts",
            &format!(
                "repacked: {along} % along the update, {lost} % lost of what the adapter reads, rounding {error} %"
            ),
        );
    }
    text += &worst(report);
    if let Some(proof) = &report.proof {
        proved(report, proof, &mut |label, value| {
            let _ = writeln!(text, "{}", hanging(label, value, width));
        });
    }
    let command = serve(report, out);
    // What Python runs is not a command of a shell.
    let lines = if report.form == Form::Peft { vec![command] } else { wrap_command(&command, width - LABEL) };
    let _ = write!(text, "{:LABEL$}{}", "use", lines.join(&format!("\n{:LABEL$}", "")));
    text
}

/// The packed weights that lost most, as columns.
fn worst(report: &Report) -> String {
    let mut worst: Vec<_> =
        report.weights.iter().filter_map(|row| Some((row.survival?.a_error?, row.survival?, row))).collect();
    worst.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut text = String::new();
    if !worst.is_empty() {
        let _ = writeln!(text, "{:LABEL$}{:<22}{:>8}{:>8}{:>10}", "", "percent", "along", "lost", "rounding");
    }
    for (lost, survival, row) in worst.iter().take(MOST_LAYERS) {
        let [along, lost, error] = [survival.along, *lost, survival.error].map(percent);
        let _ = writeln!(text, "{:LABEL$}{:<22}{along:>8}{lost:>8}{error:>10}", "", layer_of(&row.tensor));
    }
    if worst.len() > MOST_LAYERS {
        let _ = writeln!(text, "{:LABEL$}worst first; all {} are in {REPORT_FILE}", "", worst.len());
    }
    text
}

/// `layer 3 gate_up_proj` for `model.layers.3.mlp.experts.gate_up_proj`.
fn layer_of(tensor: &str) -> String {
    let parts = tensor.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    parts.map_or_else(
        || tensor.to_owned(),
        |(layer, rest)| format!("layer {layer} {}", rest.rsplit('.').next().unwrap_or(rest)),
    )
}

/// How the export compares with base and adapter.
fn proved(report: &Report, proof: &Proof, line: &mut dyn FnMut(&str, &str)) {
    line(
        "proved on",
        &format!(
            "{}, {} of {}",
            counted(proof.rows as u64, "row"),
            counted(proof.tokens as u64, "token"),
            proof.rows_of
        ),
    );
    line("", &format!("KL {:.2e} nats a token, the same next token at {} %", proof.kl, percent(proof.top1)));
    let kept = proof.gain_kept.map_or(String::new(), |kept| format!("; {:.1} % of the gain", 100.0 * kept));
    line(
        "",
        &format!(
            "loss: base {:.4}, adapter {:.4}, export {:.4}{kept}",
            proof.loss_base, proof.loss_adapter, proof.loss_export
        ),
    );
    let good = if proof.gain_kept.is_none() && report.experts_survival.is_some() {
        "open: the adapter gains nothing on these rows, so they do not show how much of it is kept"
    } else {
        "as good as base and adapter"
    };
    line("verdict", proof.reason.as_deref().unwrap_or(good));
}

fn percent(share: f64) -> String {
    format!("{:.2}", 100.0 * share)
}

/// The command that serves an export.
fn serve(report: &Report, out: &Path) -> String {
    let path = out.display().to_string();
    let out = word(&path);
    let base = word(&report.base_model);
    match report.form {
        Form::Peft => format!("PeftModel.from_pretrained(model, {path:?})"),
        Form::PeftFolded => {
            let rank = max_lora_rank(report.rank.unwrap_or(1));
            format!("vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules tuned={out}")
        }
        Form::MlxAdapter => format!("mlx_lm.generate --model {base} --adapter-path {out}"),
        Form::GgufLora => format!("llama-server -m BASE.gguf --lora {}", word(&file(report, &path))),
        Form::Bf16 | Form::Mxfp4 => format!("vllm serve {out}"),
        Form::Gguf => format!("llama-server -m {} --jinja", word(&file(report, &path))),
    }
}

/// A text as one word of a shell.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-:@+,".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// The one large file of a form.
fn file(report: &Report, out: &str) -> String {
    let ends = |name: &str| Path::new(name).extension().is_some_and(|ending| ending == "gguf");
    match report.files.iter().find(|row| ends(&row.name)) {
        Some(row) if !ends(out) => format!("{out}/{}", row.name),
        _ => out.to_owned(),
    }
}

/// The smallest value of vLLM's `--max-lora-rank` that takes a rank.
fn max_lora_rank(rank: usize) -> usize {
    const ALLOWED: [usize; 9] = [1, 8, 16, 32, 64, 128, 256, 320, 512];
    ALLOWED.into_iter().find(|allowed| *allowed >= rank).unwrap_or(rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vllm_takes_some_ranks_only() {
        assert_eq!([1, 3, 8, 9, 300].map(max_lora_rank), [1, 8, 8, 16, 320]);
    }

    #[test]
    fn weights_have_short_names_and_paths_are_one_word() {
        assert_eq!(layer_of("model.layers.23.mlp.experts.gate_up_proj"), "layer 23 gate_up_proj");
        assert_eq!(layer_of("lm_head"), "lm_head");
        assert_eq!(["a/b-c.gguf", "my model", "it's"].map(word), ["a/b-c.gguf", "'my model'", "'it'\\''s'"]);
    }
}
