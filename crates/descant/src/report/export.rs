//! The account of an export, for people.

use std::fmt::Write as _;
use std::path::Path;

use descant_export::{Form, REPORT_FILE, Report};

/// Weights that are listed; the rest is in `export.json`.
const MOST_LAYERS: usize = 8;

/// What was written, what survived, and how to serve it.
pub(crate) fn export_table(report: &Report, out: &Path) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| writeln!(text, "{label:<14} {value}").unwrap_or_default();
    line("form", report.form.name().to_owned());
    line("files", format!("{} in {}, {} bytes", report.files.len(), out.display(), report.bytes));
    line("weights", format!("{} changed by the adapter; {} tensors written", report.changed, report.tensors));
    if let Some(rank) = report.rank {
        line("rank", rank.to_string());
    }
    if let Some(all) = &report.survival {
        line(
            "update",
            format!(
                "{:.2} % of the weights; {:.2} % of it is in the export",
                100.0 * all.update,
                100.0 * all.along
            ),
        );
    }
    if let Some(experts) = &report.experts_survival {
        let lost = experts.a_error.unwrap_or_default();
        line(
            "experts",
            format!(
                "packed anew: {:.2} % along the update, {:.2} % lost of what the adapter reads, rounding {:.2} %",
                100.0 * experts.along,
                100.0 * lost,
                100.0 * experts.error
            ),
        );
    }
    let mut worst: Vec<_> =
        report.weights.iter().filter_map(|row| Some((row.survival.as_ref()?.a_error?, row))).collect();
    worst.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (lost, row) in worst.iter().take(MOST_LAYERS) {
        let (kept, error) = row.survival.map_or((0.0, 0.0), |survival| (survival.along, survival.error));
        let [kept, lost, error] = [kept, *lost, error].map(|share| 100.0 * share);
        line("", format!("{}: {kept:.2} % along, {lost:.2} % lost, rounding {error:.2} %", row.tensor));
    }
    if worst.len() > MOST_LAYERS {
        line("", format!("worst first; all {} are in {REPORT_FILE}", worst.len()));
    }
    if let Some(proof) = &report.proof {
        line("proved on", format!("{} rows, {} tokens of {}", proof.rows, proof.tokens, proof.rows_of));
        line(
            "",
            format!("KL {:.2e} nats a token, the same next token at {:.2} %", proof.kl, 100.0 * proof.top1),
        );
        let kept =
            proof.gain_kept.map_or(String::new(), |kept| format!("; {:.1} % of the gain", 100.0 * kept));
        line(
            "",
            format!(
                "loss: base {:.4}, adapter {:.4}, export {:.4}{kept}",
                proof.loss_base, proof.loss_adapter, proof.loss_export
            ),
        );
        let good = if proof.gain_kept.is_none() && report.experts_survival.is_some() {
            "open: the adapter gains nothing on these rows, so they do not show what is kept of it"
        } else {
            "as good as base and adapter"
        };
        line("verdict", proof.reason.clone().unwrap_or_else(|| good.to_owned()));
    }
    line("use", serve(report, out));
    text.trim_end().to_owned()
}

/// The command that serves an export.
fn serve(report: &Report, out: &Path) -> String {
    let out = out.display();
    let base = &report.base_model;
    match report.form {
        Form::Peft => format!("PeftModel.from_pretrained(model, \"{out}\")"),
        Form::PeftFolded => {
            let rank = max_lora_rank(report.rank.unwrap_or(1));
            format!("vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules tuned={out}")
        }
        Form::MlxAdapter => format!("mlx_lm.generate --model {base} --adapter-path {out}"),
        Form::GgufLora => format!("llama-server -m BASE.gguf --lora {}", file(report, &out.to_string())),
        Form::Bf16 | Form::Mxfp4 => format!("vllm serve {out}"),
        Form::Gguf => format!("llama-server -m {} --jinja", file(report, &out.to_string())),
    }
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
}
