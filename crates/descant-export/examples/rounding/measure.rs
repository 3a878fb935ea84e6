//! The figures of one model: `descant evaluate` on two files of rows.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::{Bench, Result};

/// Rows that ask for no language, in the working folder.
const OTHER: &str = "other.jsonl";

/// What is measured of a model.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    /// Held-out loss a token.
    pub(crate) loss: f64,
    /// Share of held-out prompts with reasoning in the language asked for.
    pub(crate) hit: f64,
    /// Share of them answered right.
    pub(crate) right: f64,
    /// Loss on rows that ask for no language, which training was to leave alone.
    pub(crate) other_loss: f64,
    /// Share of those answered right.
    pub(crate) other_right: f64,
}

impl Figures {
    /// Of the loss that the adapter gains, what is kept.
    pub(crate) fn gain_kept(&self, base: &Self, adapter: &Self) -> f64 {
        (base.loss - self.loss) / (base.loss - adapter.loss)
    }

    /// The last columns of the base's row.
    pub(crate) fn shares(&self) -> String {
        format!(
            "{:.0} % | {:.0} % | {:.4} | {:.0} %",
            100.0 * self.hit,
            100.0 * self.right,
            self.other_loss,
            100.0 * self.other_right
        )
    }

    /// For progress.
    pub(crate) fn line(&self, base: &Self, adapter: &Self) -> String {
        format!(
            "loss {:.4}, {:.1} % kept; {}",
            self.loss,
            100.0 * self.gain_kept(base, adapter),
            self.shares()
        )
    }
}

/// Keeps the English rows that name no language and whose prompt is in no row that is trained on.
pub(crate) fn other_rows(bench: &Bench) -> Result<()> {
    let read = |name: &str| -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(bench.data.join(name))?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    };
    let trained: Vec<Value> = read("multilingual-thinking-tiny-efforts.jsonl")?
        .into_iter()
        .map(|row| row["user"].clone())
        .collect();
    let mut text = String::new();
    for mut row in read("multilingual-thinking-tiny-english.jsonl")? {
        let asks =
            row["messages"][0]["content"].as_str().is_some_and(|text| text.contains("reasoning language"));
        if row["reasoning_language"] == "English" && !asks && !trained.contains(&row["user"]) {
            // What is right: the number that the answer ends with.
            let last = row["final"].as_str().and_then(|text| {
                text.rsplit(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty())?.parse::<u64>().ok()
            });
            if let Some(value) = last {
                row["answer"] = json!({"kind": "number", "value": value.to_string()});
            }
            writeln!(text, "{row}")?;
        }
    }
    Ok(descant_files::write_atomic(&bench.work.join(OTHER), text.as_bytes())?)
}

/// Evaluates the model, with an adapter or without.
pub(crate) fn measure(bench: &Bench, model: &Path, adapter: Option<&Path>) -> Result<Figures> {
    let asked = evaluate(bench, model, adapter, &bench.data.join("held-out.jsonl"), false)?;
    let plain = evaluate(bench, model, adapter, &bench.work.join(OTHER), true)?;
    Ok(Figures {
        loss: loss(&asked)?,
        hit: share(&asked, "any", "hit", "n")?,
        right: share(&asked, "any", "right", "scored")?,
        other_loss: loss(&plain)?,
        other_right: share(&plain, "none", "right", "scored")?,
    })
}

fn evaluate(bench: &Bench, model: &Path, adapter: Option<&Path>, rows: &Path, plain: bool) -> Result<Value> {
    let mut arguments: Vec<String> = ["evaluate", "--json"].map(str::to_owned).into();
    let settings = [
        format!("model.path={}", model.display()),
        format!("data.held_out={}", rows.display()),
        "evaluate.efforts=[\"medium\"]".to_owned(),
        format!("evaluate.plain={plain}"),
        format!("evaluate.prompts={}", bench.prompts),
    ];
    arguments.extend(settings.into_iter().flat_map(|set| ["--set".to_owned(), set]));
    if let Some(adapter) = adapter {
        arguments.extend(["--adapter".to_owned(), adapter.display().to_string()]);
    }
    Ok(serde_json::from_str(&bench.run(&arguments)?)?)
}

/// The one side of an evaluation.
fn side(evaluation: &Value) -> Result<&Value> {
    let side = ["after", "before"].into_iter().map(|side| &evaluation[side]).find(|side| side.is_object());
    side.ok_or_else(|| format!("no figures in {evaluation}").into())
}

fn loss(evaluation: &Value) -> Result<f64> {
    let mean = &side(evaluation)?["loss"]["channels"]["all"]["mean_nats"];
    mean.as_f64().ok_or_else(|| "no loss".into())
}

fn share(evaluation: &Value, asked: &str, part: &str, whole: &str) -> Result<f64> {
    let cells = side(evaluation)?["cells"].as_array().ok_or("no cells")?;
    let cell = cells.iter().find(|cell| cell["asked"] == asked).ok_or("no such cell")?;
    let count = |key: &str| cell[key].as_f64().ok_or_else(|| format!("no count {key}"));
    Ok(count(part)? / count(whole)?)
}
